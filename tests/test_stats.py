"""`membrane_stats`: entries of a forward, their names, threads and nested blocks."""

import copy
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from rmploss import (
    IF,
    LIF,
    MembraneStats,
    MomentSpec,
    RMPLoss,
    UserError,
    functional,
    membrane_stats,
)
from rmploss.models import SpikingNetwork, create
from rmploss.models.layers import conv3x3
from rmploss.norm import TDBatchNorm2d
from rmploss.ops.lif.moments import ERROR, MEMBRANE, SPIKES, SQUARE
from rmploss.stats import LayerMoments, name_layers, open_stats, weighted_sum
from tests import lif_oracle as oracle
from tests.given import normal

IMAGES = (2, 1, 8, 8)


def convnet() -> SpikingNetwork:
    """A tiny network in float64, all of whose layers fire."""
    net = create("convnet", in_channels=1, T=3, width=0.125).double()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            parameter.copy_(0.3 * normal(*parameter.shape, name=name) + 0.2 * ("norm" in name))
    return net


def names(stats: MembraneStats) -> list[str]:
    """The names of the entries, in order."""
    return [entry.name for entry in stats]


def test_an_entry_holds_the_moments_of_its_layer() -> None:
    x = normal(4, 2, 3, 5, mean=0.3)
    with membrane_stats(spec=MomentSpec(p=1.5)) as stats:
        spikes = LIF(3)(x)
    (entry,) = stats
    expected = oracle.forward(x.numpy(), oracle.np.zeros(x.shape[1:]), oracle.Neuron(p=1.5))
    torch.testing.assert_close(entry.moments, torch.from_numpy(expected.moments))
    assert entry.count == 4 * 2 * 5
    assert entry.elements == x.numel()
    u_pre = torch.from_numpy(expected.u_pre)
    torch.testing.assert_close(entry.firing_rate, spikes.mean())
    torch.testing.assert_close(
        entry.quantization_error, (spikes - u_pre).abs().pow(1.5).mean(), rtol=1e-13, atol=0
    )
    torch.testing.assert_close(entry.mean, u_pre.mean((0, 1, 3)), rtol=1e-13, atol=1e-15)
    torch.testing.assert_close(
        entry.variance, u_pre.var((0, 1, 3), correction=0), rtol=1e-12, atol=0
    )


def test_one_entry_per_layer_in_order_and_named() -> None:
    net = convnet()
    with membrane_stats(net) as stats:
        net(normal(*IMAGES))
    assert names(stats) == ["lif1", "lif2", "lif3"]
    assert len(stats) == 3
    assert stats.spec == MomentSpec()


def test_nothing_is_recorded_outside() -> None:
    net = convnet()
    net(normal(*IMAGES))
    with membrane_stats(net) as stats:
        assert open_stats() is stats
    assert open_stats() is None
    net(normal(*IMAGES))
    assert len(stats) == 0


def test_an_exception_closes_the_block() -> None:
    with pytest.raises(ZeroDivisionError), membrane_stats():
        raise ZeroDivisionError
    assert open_stats() is None


def test_recording_changes_no_spike_and_no_gradient() -> None:
    net, x = convnet(), normal(*IMAGES).requires_grad_()
    plain = net(x)
    with membrane_stats(net):
        recorded = net(x)
    assert torch.equal(plain, recorded)
    (one,), (other,) = (torch.autograd.grad(y.square().sum(), x) for y in (plain, recorded))
    assert torch.equal(one, other)


def test_nested_blocks_shadow_each_other() -> None:
    first, second, third = LIF(), LIF(), LIF()
    x = normal(2, 2, 3)
    with membrane_stats(spec=MomentSpec(p=1)) as outer:
        first(x)
        with membrane_stats(spec=MomentSpec(p=2)) as inner:
            second(x)
        third(x)
    assert len(outer) == 2
    assert len(inner) == 1
    assert outer.spec.p == 1
    assert inner.spec.p == 2
    assert not torch.equal(outer.layers[0].moments[ERROR], inner.layers[0].moments[ERROR])


def test_threads_do_not_see_each_others_block() -> None:
    x = normal(2, 2, 3)
    both_open = threading.Barrier(2, timeout=30)
    found: dict[str, object] = {}

    def outsider() -> None:
        found["seen"] = open_stats()
        with membrane_stats() as mine:
            both_open.wait()
            LIF()(x)
            both_open.wait()
        found["mine"] = mine

    thread = threading.Thread(target=outsider)
    with membrane_stats() as stats:
        thread.start()
        both_open.wait()
        LIF()(x)
        LIF()(x)
        both_open.wait()
        thread.join()
    assert found["seen"] is None
    assert len(stats) == 2
    mine = found["mine"]
    assert isinstance(mine, MembraneStats)
    assert len(mine) == 1


def test_layers_without_a_network_are_counted() -> None:
    with membrane_stats() as stats:
        LIF()(normal(2, 2, 3))
        IF()(normal(2, 2, 3))
    assert names(stats) == ["lif0", "lif1"]


def test_a_shared_layer_has_an_entry_for_each_run() -> None:
    lif = LIF()
    net = nn.Sequential(lif, nn.Tanh(), lif)
    with membrane_stats(net) as stats:
        net(normal(2, 2, 3))
    assert names(stats) == ["0", "0"]


def test_names_are_those_of_the_network_and_not_of_its_wrappers() -> None:
    class Wrapped(nn.Module):
        def __init__(self, wrapper: str, net: nn.Module) -> None:
            super().__init__()
            self.add_module(wrapper, net)

    for wrappers in [("module",), ("_orig_mod",), ("_orig_mod", "module"), ("module", "_orig_mod")]:
        net = nn.Sequential(nn.Identity(), nn.Sequential(LIF()))
        wrapped: nn.Module = net
        for wrapper in reversed(wrappers):
            wrapped = Wrapped(wrapper, wrapped)
        name_layers(wrapped)
        assert net[1][0].layer_name == "1.0"  # pyright: ignore[reportIndexIssue]


@contextmanager
def process_group(folder: Path) -> Iterator[None]:
    """A process group of one."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


def test_under_distributed_data_parallel(tmp_path: Path) -> None:
    x, rmp = normal(*IMAGES), RMPLoss()
    plain, net = convnet(), convnet()
    with process_group(tmp_path):
        parallel = DistributedDataParallel(net)
        with membrane_stats(parallel, rmp.spec) as stats:
            y = parallel(x)
        (y.square().sum() + rmp.value(stats)).backward()
    with membrane_stats(plain, rmp.spec) as expected:
        z = plain(x)
    (z.square().sum() + rmp.value(expected)).backward()
    assert names(stats) == names(expected) == ["lif1", "lif2", "lif3"]
    same_gradients(net, plain)


def same_gradients(net: nn.Module, other: nn.Module) -> None:
    """Equal gradients, of which some are not zero, and equal buffers."""
    sizes = []
    for (name, one), two in zip(net.named_parameters(), other.parameters(), strict=True):
        assert one.grad is not None
        assert two.grad is not None
        torch.testing.assert_close(one.grad, two.grad, rtol=1e-12, atol=1e-14, msg=name)
        sizes.append(one.grad.abs().max().item())
    assert min(sizes) > 1e-6
    for one, two in zip(net.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-14)


def one_layer() -> nn.Module:
    """Two time steps of one layer: what a compiler has to do grows with the loop over time."""
    torch.manual_seed(0)
    return nn.Sequential(conv3x3(1, 2, TDBatchNorm2d), LIF()).double()


@pytest.mark.parametrize(
    ("backend", "make", "shape"),
    [("eager", convnet, IMAGES), ("aot_eager", one_layer, (2, *IMAGES))],
)
def test_under_compile_without_a_graph_break(
    backend: str, make: Callable[[], nn.Module], shape: tuple[int, ...]
) -> None:
    x, rmp = normal(*shape), RMPLoss()
    plain, net = make(), make()
    torch.compiler.reset()
    compiled: Callable[[Tensor], Tensor] = torch.compile(net, backend=backend, fullgraph=True)
    runs = []
    for forward, owner in ((compiled, net), (plain, plain)):
        with membrane_stats(owner, rmp.spec) as stats:
            y = forward(x)
        (y.square().sum() + rmp.value(stats)).backward()
        runs.append(stats)
    assert names(runs[0]) == names(runs[1])
    for one, other in zip(*runs, strict=True):
        torch.testing.assert_close(one.moments, other.moments, rtol=1e-13, atol=1e-14)
        assert one.count == other.count
    same_gradients(net, plain)
    # The same compiled network knows that there is no block any more, and that there is one again.
    compiled(x)
    assert len(runs[0]) == len(runs[1])
    with membrane_stats(net, rmp.spec) as again:
        compiled(x)
    assert names(again) == names(runs[1])


def test_detached_statistics_are_for_logs() -> None:
    net = convnet()
    with membrane_stats(net) as stats:
        net(normal(*IMAGES))
    log = stats.detach()
    assert names(log) == names(stats)
    for entry, source in zip(log, stats, strict=True):
        assert not entry.moments.requires_grad
        assert source.moments.requires_grad
        assert torch.equal(entry.moments, source.moments)


def test_moments_through_a_block_and_through_the_function_are_the_same() -> None:
    x = normal(3, 2, 4)
    with membrane_stats() as stats:
        spikes = LIF()(x)
    same_spikes, moments = functional.lif(x)
    assert torch.equal(spikes, same_spikes)
    assert torch.equal(stats.layers[0].moments, moments)
    rows = [MEMBRANE, SQUARE, ERROR, SPIKES]
    u = functional.membrane(x)
    sums = torch.stack([u, u * u, (spikes - u) ** 2, spikes]).sum((1, 2))
    torch.testing.assert_close(moments[rows], sums, rtol=1e-13, atol=1e-14)


def test_entries_by_name_and_the_means_over_the_layers() -> None:
    net = create("convnet", in_channels=1, num_classes=3, T=2)
    with membrane_stats(net) as stats:
        net(normal(2, 1, 8, 8).float())
    assert stats["lif2"] is stats[1]
    assert stats[-1].name == "lif3"
    rates = [layer.firing_rate for layer in stats]
    errors = [layer.quantization_error for layer in stats]
    torch.testing.assert_close(stats.firing_rate, sum(rates) / 3)
    torch.testing.assert_close(stats.quantization_error, sum(errors) / 3)
    assert MembraneStats().firing_rate == MembraneStats().quantization_error == 0
    with pytest.raises(UserError, match='did you mean "lif2"'):
        stats["lif22"]


def test_a_weighted_sum_refuses_moments_of_every_step() -> None:
    layer = LayerMoments("lif1", normal(3, 4, 2), 5, 0.5)
    with pytest.raises(UserError, match=r"lif1.*of every step, \[3, 4, 2\].*layer.over_time"):
        weighted_sum([layer], SPIKES, [1.0])
    found = weighted_sum([layer.over_time()], SPIKES, [2.0])
    torch.testing.assert_close(found, 2 * layer.moments[:, SPIKES].sum(), rtol=1e-14, atol=0)


def test_a_regularizer_shows_its_options() -> None:
    shown = repr(RMPLoss(k=0.5, exclude=("*.lif1",)))
    assert shown.startswith("RMPLoss(k=0.5, p=2.0, schedule='triangle', ")
    assert repr(eval(shown, {"RMPLoss": RMPLoss})) == shown
    assert repr(copy.deepcopy(RMPLoss(k=0.5))) == repr(RMPLoss(k=0.5))
