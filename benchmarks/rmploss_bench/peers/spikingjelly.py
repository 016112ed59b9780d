"""SpikingJelly 2: multi-step nodes and containers.

Its LIF has a time constant, decay = 1 - 1/tau: tau = 4/3 with decay_input=False is the paper's 0.25
(Eq. 1). Surrogate: Sigmoid(alpha=4), its default and one of those for which it has a fused kernel;
it has none for the paper's. The reset carries gradient, as in the paper. `functional.reset_net`
sets the membranes back to rest between batches.
"""

from collections.abc import Callable

from torch import Tensor, nn

from rmploss_bench.peers._network import Kit, peer_module


class SpikingJelly(Kit):
    """`SeqToANNContainer` and `LIFNode` in step mode "m"."""

    package = "spikingjelly"

    def __init__(self) -> None:
        base = "spikingjelly.activation_based"
        self.functional = peer_module(f"{base}.functional")
        self.layer = peer_module(f"{base}.layer")
        self.neuron = peer_module(f"{base}.neuron")
        self.surrogate = peer_module(f"{base}.surrogate")

    def over_time(self, *layers: nn.Module) -> nn.Module:
        """The layers applied to T*B maps."""
        return self.layer.SeqToANNContainer(*layers)

    def neurons(self) -> nn.Module:
        """`LIFNode` over all time steps."""
        return self.neuron.LIFNode(
            tau=4 / 3,
            decay_input=False,
            v_threshold=0.5,
            v_reset=0.0,
            detach_reset=False,
            surrogate_function=self.surrogate.Sigmoid(alpha=4.0),
            step_mode="m",
            store_v_seq=False,
        )

    def save_memory(
        self, net: nn.Module, forward: Callable[[nn.Module], Tensor], level: int
    ) -> None:
        """Apply SpikingJelly's memory optimization to all layers of `net`, in place.

        net: the network.
        forward: runs one forward of a network and returns its output, from which level 2 and more
            start a backward; the layers are measured by it.
        level: 1 to 4; the higher, the less memory.
        """
        memopt = peer_module("spikingjelly.activation_based.memopt")
        targets = (self.layer.SeqToANNContainer, self.neuron.LIFNode)
        memopt.optimize_memory(net, targets, forward, level=level)

    def reset(self, net: nn.Module) -> None:
        """Set all membranes back to rest."""
        self.functional.reset_net(net)
