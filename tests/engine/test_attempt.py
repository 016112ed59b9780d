"""Ranks agree on a name that is new, whatever the store holds from earlier starts."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import permutations
from time import sleep

import pytest
from torch._C._distributed_c10d import HashStore, Store

from rmploss.engine.attempt import PAUSE_S, agree


def names(store: Store, order: Sequence[int]) -> list[str]:
    """The names that ranks agree on; those that come first look at the store alone for a while."""
    with ThreadPoolExecutor(len(order)) as pool:
        found = []
        for rank in order:
            found.append(pool.submit(agree, store, rank, len(order), 5.0))
            sleep(2 * PAUSE_S)
        return [name.result() for name in found]


@pytest.mark.parametrize("order", [*permutations(range(3)), (0, 1), (1, 0)])
def test_ranks_that_start_again_agree_on_a_new_name(order: Sequence[int]) -> None:
    store = HashStore()
    first, second = names(store, order), names(store, order)
    assert len({*first}) == len({*second}) == 1
    assert first[0] != second[0]


@pytest.mark.parametrize("died", [0, 1])
def test_what_a_rank_said_that_died_while_it_waited_does_not_count(died: int) -> None:
    store = HashStore()
    names(store, (0, 1))
    for _ in range(2):
        with pytest.raises(TimeoutError, match=r"rank 1 did not come|not all ranks came"):
            agree(store, died, 2, 0.1)
    first, second = names(store, (1, 0))
    assert first == second


def test_the_ranks_that_do_not_come_are_named() -> None:
    with pytest.raises(TimeoutError, match=r"rank 1 and rank 2 did not come within 0.1 s"):
        agree(HashStore(), 0, 3, 0.1)
