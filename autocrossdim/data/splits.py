"""Which cases a fold trains on and which it validates with."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autocrossdim.data.dataset import Dataset
from autocrossdim.system.errors import UserError
from autocrossdim.system.files import read_json, write_json

FOLDS = 5
SEED = 12345  # nnU-Net's, so that folds can be compared case by case


@dataclass(frozen=True)
class Split:
    """One fold: names of the cases to train on and to validate with."""

    train: tuple[str, ...]
    val: tuple[str, ...]


def make_splits(
    names: Sequence[str], groups: Mapping[str, str], presence: Mapping[str, Collection[int]] | None = None
) -> tuple[list[Split], str]:
    """Make the folds of a cross-validation in which every case is validated exactly once.

    Five folds, as nnU-Net makes them; with groups, five folds of about equal size in which the cases of a
    group stay together. Where a label is missing from some cases, every label is spread over the folds as evenly
    as that allows. Fewer than five cases or groups: each is left out once. One: no fold at all.

    Args:
        names: training cases, in any order.
        groups: case -> group; a case without one is a group of its own.
        presence: case -> label values that it holds; None where that is not known.

    Returns:
        The folds, and a sentence that says what was made.
    """
    from sklearn.model_selection import GroupKFold, KFold, LeaveOneGroupOut  # slow to import

    cases = np.array(sorted(names))
    keys = [("group", groups[name]) if name in groups else ("case", name) for name in cases]
    index = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    members = np.array([index[key] for key in keys])
    number = len(index)
    grouped = number < len(cases)
    unit = "groups of cases" if grouped else "cases"

    if number < 2:
        what = "one group of cases" if grouped else f"{len(cases)} case{'s' if len(cases) != 1 else ''}"
        return (
            [],
            f"Only {what}: nothing can be held out for validation, so only `--fold all` can be trained.",
        )
    if number < FOLDS:
        folds = LeaveOneGroupOut().split(cases, groups=members)
        sentence = f"Only {number} {unit}: {number} folds, each validates with the one it leaves out."
    elif presence is not None and len({frozenset(presence[name]) for name in names}) > 1:
        fold_of = _spread(members, [presence[name] for name in cases])
        folds = ((np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)) for fold in range(FOLDS))
        sentence = f"{FOLDS} folds over {len(cases)} cases, with the labels that only some cases hold spread evenly."
        sentence += f" {number} groups are kept together." if grouped else ""
    elif grouped:
        folds = GroupKFold(FOLDS).split(cases, groups=members)
        sentence = f"{FOLDS} folds over {len(cases)} cases in {number} groups, which are kept together."
    else:
        folds = KFold(FOLDS, shuffle=True, random_state=SEED).split(cases)
        sentence = f"{FOLDS} folds over {len(cases)} cases, as nnU-Net makes them."
    return [Split(tuple(map(str, cases[a])), tuple(map(str, cases[b]))) for a, b in folds], sentence


def _spread(members: np.ndarray, presence: Sequence[Collection[int]]) -> np.ndarray:
    """Return the fold of each case: the rarest label first, a group at a time, to the fold that lacks it most.

    The iterative stratification of Sechidis et al. (2011), with groups in the place of samples.

    Args:
        members: group of each case, shape (n,), numbered from 0.
        presence: label values a case holds.
    """
    labels = sorted(set().union(*presence))
    holds = np.array([[label in held for label in labels] for held in presence], dtype=int)
    groups = np.zeros((members.max() + 1, len(labels)), dtype=int)
    np.add.at(groups, members, holds)
    sizes = np.bincount(members)
    order = np.random.default_rng(SEED).permutation(len(groups))
    fold_of_group = np.full(len(groups), -1)
    filled, cases = np.zeros((FOLDS, len(labels)), dtype=int), np.zeros(FOLDS, dtype=int)
    while (fold_of_group < 0).any():
        left = [group for group in order if fold_of_group[group] < 0]
        counts = groups[left].sum(axis=0)
        rarest = min(np.flatnonzero(counts), key=lambda label: counts[label], default=None)
        # Cases that hold nothing come last, and even out the sizes.
        chosen = left if rarest is None else [group for group in left if groups[group, rarest]]
        for group in sorted(chosen, key=lambda group: -sizes[group]):
            lacks = filled[:, rarest] if rarest is not None else cases
            fold = min(range(FOLDS), key=lambda fold: (lacks[fold], cases[fold], fold))
            fold_of_group[group] = fold
            filled[fold] += groups[group]
            cases[fold] += sizes[group]
    return fold_of_group[members]  # type: ignore[no-any-return]


def load_or_make_splits(
    dataset: Dataset, path: Path, presence: Mapping[str, Collection[int]] | None = None
) -> tuple[list[Split], str]:
    """Return the folds in splits.json at `path`; if there is none, take over or make them, and write it.

    Taken over are splits_final.json, then splits.json, of the raw dataset's folder.

    Args:
        dataset: whose training cases are split.
        path: of splits.json.
        presence: as for `make_splits`.

    Returns:
        The folds, and a sentence that says where they come from.

    Raises:
        UserError: a splits file with an unknown case, a case or a group on both sides, or an empty side.
    """
    names = [case.name for case in dataset.training_cases()]
    if path.exists():
        return _read(path, names, dataset.groups), f"{path}: folds as made before."
    for file in (dataset.path / "splits_final.json", dataset.path / "splits.json"):
        if file.exists():
            splits = _read(file, names, dataset.groups)
            sentence = f"{len(splits)} folds taken over from {file}."
            break
    else:
        splits, sentence = make_splits(names, dataset.groups, presence)
    write_json(path, [{"train": list(split.train), "val": list(split.val)} for split in splits])
    return splits, sentence


def _read(path: Path, names: Sequence[str], groups: Mapping[str, str]) -> list[Split]:
    content = read_json(path)
    if not isinstance(content, list) or not all(_is_split(entry) for entry in content):
        raise UserError(f'{path}: must be a list of {{"train": [names], "val": [names]}}.')
    splits = [Split(tuple(entry["train"]), tuple(entry["val"])) for entry in content]
    for fold, split in enumerate(splits):
        train, val = set(split.train), set(split.val)
        if unknown := sorted((train | val) - set(names)):
            raise UserError(
                f"{path}: fold {fold} names {unknown[0]}, which is no training case. Mend or delete the file."
            )
        if both := sorted(train & val):
            raise UserError(f"{path}: fold {fold} both trains on and validates with {both[0]}. Mend the file.")
        if not train or not val:
            raise UserError(f"{path}: fold {fold} has an empty {'val' if train else 'train'}. Mend the file.")
        shared = {groups[name] for name in train if name in groups} & {groups[n] for n in val if n in groups}
        if shared:
            raise UserError(
                f"{path}: fold {fold} has group {min(shared)} in both train and val. Keep a group together."
            )
    return splits


def _is_split(entry: Any) -> bool:
    return isinstance(entry, dict) and all(
        isinstance(entry.get(side), list) and all(isinstance(name, str) for name in entry[side])
        for side in ("train", "val")
    )
