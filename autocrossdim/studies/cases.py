"""Which cases a study trains on and which it is tested on."""

from collections.abc import Mapping, Sequence
from math import ceil

import numpy as np

from autocrossdim.system.errors import UserError

SEED = 12345  # of the held-out cases, which are the same for all runs
HELD_OUT = 0.25  # of the cases, unless the user names a number


def hold_out(names: Sequence[str], groups: Mapping[str, str], number: int | None = None) -> tuple[list[str], list[str]]:
    """Divide the annotated cases of a dataset into those to train on and those that no run is trained on.

    Groups (patients) are drawn at random and held out completely until enough cases are.

    Args:
        names: Names of the cases.
        groups: Case -> group; a case without one is a group of its own.
        number: Number of cases to hold out, at least; by default a quarter of them.

    Returns:
        Names of the cases to train on and of the held-out cases, sorted.

    Raises:
        UserError: Nothing would be left to train on.
    """
    wanted = ceil(HELD_OUT * len(names)) if number is None else number
    members = _members(names, groups)
    test: list[str] = []
    for key in np.random.default_rng(SEED).permutation(sorted(members)):
        if len(test) < wanted:
            test += members[str(key)]
    training = sorted(set(names) - set(test))
    if not training:
        raise UserError(
            f"Holding out {wanted} of {len(names)} cases leaves none to train on: there are {len(members)} groups "
            "(patients), which are held out completely. Lower --test-cases, or add cases."
        )
    return training, sorted(test)


def training_order(names: Sequence[str], groups: Mapping[str, str], seed: int) -> list[str]:
    """Return the cases in the order in which a seed takes them: the first n are the training cases of a run with n.

    Groups are in random order, and one case of each is taken in turn, because few cases of many patients are more
    useful than many cases of few.
    """
    random = np.random.default_rng(seed)
    members = _members(names, groups)
    queues = [
        [str(case) for case in random.permutation(members[str(key)])] for key in random.permutation(sorted(members))
    ]
    return [queue[turn] for turn in range(max(map(len, queues))) for queue in queues if turn < len(queue)]


def _members(names: Sequence[str], groups: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the cases of each group, by a key that no case and group share."""
    members: dict[str, list[str]] = {}
    for name in sorted(names):
        members.setdefault(f"group {groups[name]}" if name in groups else f"case {name}", []).append(name)
    return members
