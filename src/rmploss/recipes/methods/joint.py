"""Joint A-SNN (Guo et al., Pattern Recognition 2023): an ANN and an SNN share kernel factors."""

from rmploss.recipes.method import Method
from rmploss.recipes.recipe import Recipe, use
from rmploss.recipes.rmp import CIFAR10
from rmploss.recipes.tables import Row

NEURON = use("lif", decay=0.25, v_threshold=0.5, surrogate="rectangle")
LOSS = use("joint", alpha=0.1, beta=1e-6, temperature=3.0)
METHOD = Method(
    name="joint",
    title="Joint A-SNN",
    paper="Guo et al., Joint A-SNN: Joint Training of Artificial and Spiking Neural Networks via "
    "Self-Distillation and Weight Factorization, Pattern Recognition 2023",
    code="github.com/yfguo91/Joint-A-SNN",
    idea="Train an ANN beside the SNN: both share the factors of their kernels, and the heads of "
    "the ANN teach those of the SNN.",
    equations="K_ann = U diag(s_ann) V;  K_snn = U diag(s_snn) V   at every position of a kernel\n"
    "L = (1 - a) sum CE + 9 a [sum S(ann_i <- ann_4) + sum S(snn_i <- ann_i)]\n"
    "  + b sum |f_snn - f_ann|^2 where f_snn > 0 or f_ann > 0",
    inference="the ANN, the auxiliary heads, the factors: an ordinary kernel remains",
    doubts=(
        "We had no access to the paper; all of this follows the released code.",
        "Its norm takes statistics of each time step separately (bn_step), not tdBN. The published "
        "recipe does so, too; the fair one has tdBN in the SNN, as all methods there.",
        "Its raw reshape scrambles the initial kernel before it is decomposed; ours is not "
        "scrambled, which for independent random weights is the same distribution.",
        "The second convolution of an auxiliary head keeps 128 channels: our reading.",
        "A static image has the same current at every step, so the first norm counts it once; the "
        "code passes it T times, with the same statistics.",
        "The released feature term is a sum over the batch; ours is 1024 times the mean over its "
        "samples, the same at the published batch of 1024, also in the small fair batches.",
        "The code's seed is 1000, and its SGD has no momentum.",
        "ANN and auxiliary heads add about a third to the cost of training (dense operations at "
        "T = 4); T concerns the SNN only. RMP-Loss includes the neurons of the auxiliary heads.",
    ),
    parts={
        "network": use("joint", backbone="resnet20"),
        "neuron": NEURON,
        "loss": LOSS,
    },
    recipes=(
        Recipe(
            name="cifar10-joint-resnet18",
            title="Joint A-SNN, ResNet18 on CIFAR-10",
            data=CIFAR10,
            network=use("joint", backbone="resnet18"),
            T=4,
            neuron=NEURON,
            norm=use("bn_step"),
            loss=LOSS,
            optimizer=use("sgd", momentum=0.0),
            lr=0.1,
            epochs=300,
            batch_size=1024,
            weight_decay=5e-4,
            amp="fp16",
        ),
    ),
    rows=(Row(2, "cifar10-joint-resnet18", 4, 95.45),),
)
