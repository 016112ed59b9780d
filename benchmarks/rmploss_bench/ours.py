"""Contestants of rmploss: with RMP-Loss, without it, and with the reference operations alone."""

from torch import Tensor, nn

from rmploss import ops
from rmploss.lifecycle import fold, settle
from rmploss.objectives import RMPLoss
from rmploss.stats import membrane_stats
from rmploss_bench.runners import NetRunner, Runner, copied
from rmploss_bench.workload import Workload

PROGRESS = 0.5
"""n / N of Eq. 12, where lambda(n) is largest; dimensionless."""


def make_rmploss_with_rmp(workload: Workload, train: bool) -> Runner:
    """Training with RMP-Loss, as the paper trains; in evaluation the same as `make_rmploss`."""
    if not train:
        return make_rmploss(workload, train)
    return _WithRMP(workload, copied(workload).train())


def make_rmploss(workload: Workload, train: bool) -> Runner:
    """Training without RMP-Loss; in evaluation the norms are folded into the convolutions."""
    return NetRunner(workload, _mode(copied(workload), train))


def make_loaded(workload: Workload, train: bool) -> Runner:
    """Evaluation as `rmploss.load` gives the network: its norms are not folded."""
    return NetRunner(workload, settle(copied(workload).eval()))


def make_reference(workload: Workload, train: bool) -> Runner:
    """Like `make_rmploss`, with every operation computed by the reference (`ops/reference.py`)."""
    net = _mode(copied(workload), train)
    return NetRunner(workload, net, around=lambda: ops.use_backend("reference"))


class _WithRMP(NetRunner):
    def __init__(self, workload: Workload, net: nn.Module) -> None:
        super().__init__(workload, net)
        self.rmp = RMPLoss()

    def loss(self) -> Tensor:
        """Eq. 11."""
        with membrane_stats(self.net, self.rmp.spec) as stats:
            ce = super().loss()
        return ce + self.rmp(stats, progress=PROGRESS)


def _mode(net: nn.Module, train: bool) -> nn.Module:
    return net.train() if train else fold(net)
