"""Agree on a name for this start of the ranks, at a store that may hold the keys of earlier starts.

`torchrun --max-restarts` serves one store for all starts of the ranks: without names of their own
they would read each other's addresses. Its count of restarts is no name, as each machine counts
for itself.

Rank 0 draws a new name. The others answer with it and a number that they draw. Rank 0 repeats all
answers. Only a rank that lives can answer with the new name, and a rank that finds its own number
repeated knows that the name is not an old one.
"""

import json
from time import monotonic, sleep
from uuid import uuid4

from torch.distributed.distributed_c10d import Store

NAME, ANSWERS = "name", "answers"
PAUSE_S = 0.02


def agree(store: Store, rank: int, size: int, seconds: float) -> str:
    """The name of this start, equal on all ranks and new; all ranks call it.

    store: keys and values that all ranks see.
    rank: this process.
    size: the number of ranks.
    seconds: how long to wait for the others.

    Raises `TimeoutError`, on rank 0 with those that are missing, if not all ranks come.
    """
    deadline = monotonic() + seconds
    if rank == 0:
        return _propose(store, size, deadline, seconds)
    return _answer(store, rank, deadline, seconds)


def _propose(store: Store, size: int, deadline: float, seconds: float) -> str:
    name = uuid4().hex
    store.set(NAME, name)
    while True:
        answers = [_read(store, _answer_key(rank)) for rank in range(1, size)]
        missing = [rank for rank, answer in enumerate(answers, 1) if not answer.startswith(name)]
        if not missing:
            store.set(ANSWERS, json.dumps(answers))
            return name
        if monotonic() > deadline:
            ranks = " and ".join(f"rank {rank}" for rank in missing)
            raise TimeoutError(f"{ranks} did not come within {seconds:g} s")
        sleep(PAUSE_S)


def _answer(store: Store, rank: int, deadline: float, seconds: float) -> str:
    number, said = uuid4().hex, ""
    while True:
        name = _read(store, NAME)
        answer = f"{name} {number}"
        if name and answer != said:
            store.set(_answer_key(rank), answer)
            said = answer
        if said in json.loads(_read(store, ANSWERS) or "[]"):
            return name
        if monotonic() > deadline:
            raise TimeoutError(f"not all ranks came within {seconds:g} s")
        sleep(PAUSE_S)


def _answer_key(rank: int) -> str:
    return f"answer/{rank}"


def _read(store: Store, key: str) -> str:
    """The value of a key; "": it is not set."""
    return store.get(key).decode() if store.check([key]) else ""
