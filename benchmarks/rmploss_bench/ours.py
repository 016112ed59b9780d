"""Our own contestants: the network with RMP-Loss, without it, and by the reference alone."""

from torch import Tensor, nn

from rmploss import ops
from rmploss.objectives import RMPLoss
from rmploss.stats import membrane_stats
from rmploss_bench.case import Case
from rmploss_bench.contestants import NetRunner, Runner, copied

PROGRESS = 0.5
"""n / N of Eq. 12, where lambda(n) is largest."""


def with_rmp(case: Case, train: bool) -> Runner:
    """Ours with RMP-Loss, as the paper trains; evaluation has no loss, so it is `plain` there."""
    return _WithRMP(case, copied(case).train()) if train else plain(case, train)


def plain(case: Case, train: bool) -> Runner:
    """Ours without RMP-Loss; for evaluation with the norms folded into the convolutions."""
    return NetRunner(case, _mode(copied(case), train))


def reference(case: Case, train: bool) -> Runner:
    """Ours, every operation by the provider that reads like the paper."""
    return NetRunner(case, _mode(copied(case), train), around=lambda: ops.use_backend("reference"))


class _WithRMP(NetRunner):
    def __init__(self, case: Case, net: nn.Module) -> None:
        super().__init__(case, net)
        self.rmp = RMPLoss()

    def loss(self) -> Tensor:
        """Eq. 11."""
        with membrane_stats(self.net, self.rmp.spec) as stats:
            ce = super().loss()
        return ce + self.rmp(stats, progress=PROGRESS)


def _mode(net: nn.Module, train: bool) -> nn.Module:
    from rmploss.lifecycle import fold

    return net.train() if train else fold(net)
