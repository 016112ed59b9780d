"""PLIF (Fang et al., ICCV 2021): every layer learns its membrane time constant."""

from rmploss.recipes.method import NOT_ONE_HALF, Method
from rmploss.recipes.recipe import Recipe, use
from rmploss.recipes.rmp import NONE
from rmploss.recipes.tables import Row

NEURON = use("plif", tau=2.0, v_threshold=1.0, surrogate="arctan")
METHOD = Method(
    name="plif",
    title="PLIF",
    paper="Fang et al., Incorporating Learnable Membrane Time Constant to Enhance Learning of "
    "Spiking Neural Networks, ICCV 2021",
    code="github.com/fangwei123456/Parametric-Leaky-Integrate-and-Fire-Spiking-Neuron",
    idea="Learn the time constant of each layer along with its weights; pool by the maximum.",
    equations="u(t) = (1 - k) u(t-1) + k x(t),  k = sigmoid(w) = 1/tau;  o = 1[u >= 1];  "
    "u <- u (1 - o)\n"
    "do/du = 1 / (1 + pi^2 (u - 1)^2); no gradient through the reset\n"
    "L = MSE(1/T sum_t vote(t), one-hot y)",
    inference="the norm is folded into the convolution",
    doubts=(
        "The paper's formula is the squared error of every step, the code's that of the mean. We "
        "follow the code; --set loss.per_step=true follows the paper.",
        "The norm takes statistics of each step separately, and of a static image once; later "
        "versions of SpikingJelly take them over all steps.",
        "One dropout on CIFAR-10, before the first linear layer, as in the code; the paper's table "
        "shows two.",
        "93.50 is the best test accuracy over the epochs; the last epoch of the authors' log has "
        "92.40.",
        "In the fair comparison the protocol's weight decay acts on w as well, and pulls tau to 2; "
        "the paper has none.",
        "Fair: only the neuron; the loss is the protocol's. tdBN gives currents the deviation 2, "
        "so that the membrane, which takes half of a current, has the deviation V_th = 1 (Eq. 6).",
        NOT_ONE_HALF,
    ),
    parts={"neuron": NEURON},
    recipes=(
        Recipe(
            name="cifar10-plif-plifnet",
            title="PLIF, PLIFNet on CIFAR-10",
            data=use("cifar10", augment="standard"),
            network=use("plifnet", readout="mean"),
            T=8,
            neuron=NEURON,
            norm=use("bn_step"),
            loss=use("mse"),
            objective=NONE,
            optimizer=use("adam"),
            lr=0.001,
            lr_schedule=use("cosine", period=64),
            epochs=1024,
            batch_size=16,
            weight_decay=0.0,
        ),
    ),
    rows=(Row(2, "cifar10-plif-plifnet", 8, 93.50),),
)
