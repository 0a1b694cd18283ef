"""Cross-validation: the training and validation cases of each fold."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autocrossdim.data.dataset import Dataset
from autocrossdim.system.errors import UserError
from autocrossdim.system.files import read_json, reading, write_json
from autocrossdim.system.text import counted

FOLDS = 5
SEED = 12345  # as in nnU-Net, so that its folds can be compared case by case


@dataclass(frozen=True)
class Split:
    """One fold: names of its training and validation cases."""

    train: tuple[str, ...]
    val: tuple[str, ...]


def make_splits(
    names: Sequence[str], groups: Mapping[str, str], presence: Mapping[str, Collection[int]] | None = None
) -> tuple[list[Split], str]:
    """Return the folds of a cross-validation in which every case is validated exactly once.

    There are five folds, the same as nnU-Net's. With groups, the folds are of about equal size and the cases of a group
    stay together. If some cases lack a label, every label is spread over the folds as evenly as possible. With fewer
    than five cases or groups, each is left out once; a single one gives no fold.

    Args:
        names: training cases, in any order.
        groups: case -> group; a case without one is a group of its own.
        presence: case -> label values that it holds; None if unknown.

    Returns:
        The folds, and a sentence that describes them.
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
        what = "one group of cases" if grouped else counted(len(cases), "case")
        return [], f"Only {what}: no case can be held out for validation, so only `--fold all` can be trained."
    if number < FOLDS:
        folds = LeaveOneGroupOut().split(cases, groups=members)
        sentence = f"Only {number} {unit}: {number} folds, each of which validates with the one it leaves out."
    elif presence is not None and len({frozenset(presence[name]) for name in names}) > 1:
        fold_of = _spread(members, [presence[name] for name in cases])
        folds = ((np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)) for fold in range(FOLDS))
        sentence = f"{FOLDS} folds over {len(cases)} cases, with the labels that only some cases hold spread evenly."
        sentence += f" The cases of each of {number} groups stay together." if grouped else ""
    elif grouped:
        folds = GroupKFold(FOLDS).split(cases, groups=members)
        sentence = f"{FOLDS} folds over {len(cases)} cases in {number} groups, whose cases stay together."
    else:
        folds = KFold(FOLDS, shuffle=True, random_state=SEED).split(cases)
        sentence = f"{FOLDS} folds over {len(cases)} cases, the same as nnU-Net's."
    return [Split(tuple(map(str, cases[a])), tuple(map(str, cases[b]))) for a, b in folds], sentence


def _spread(members: np.ndarray, presence: Sequence[Collection[int]]) -> np.ndarray:
    """Return the fold of each case: groups with the rarest label first, each to the fold that has it least.

    This is the iterative stratification of Sechidis et al. (2011), applied to groups instead of samples.

    Args:
        members: group of each case, shape (n,), numbered from 0.
        presence: label values of each case.
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
        # Groups without any label come last and even out the sizes.
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
    """Return the folds in splits.json at `path`, which is written first if it does not exist.

    New folds are those of splits_final.json, then splits.json, in the raw dataset, else of `make_splits`.

    Args:
        dataset: raw dataset with the training cases.
        path: path of splits.json.
        presence: as for `make_splits`.

    Returns:
        The folds, and a sentence that names their origin.

    Raises:
        UserError: a splits file with an unknown case, a case or group in both train and val, or an empty list.
    """
    names = [case.name for case in dataset.training_cases()]
    with reading():
        candidates = (path, dataset.path / "splits_final.json", dataset.path / "splits.json")
        existing = [file for file in candidates if file.exists()]
    if path in existing:
        return _read(path, names, dataset.groups), f"Folds of {path}."
    for file in existing:
        splits = _read(file, names, dataset.groups)
        sentence = f"{counted(len(splits), 'fold')} taken from {file}."
        break
    else:
        splits, sentence = make_splits(names, dataset.groups, presence)
    write_json(path, [{"train": list(split.train), "val": list(split.val)} for split in splits])
    return splits, sentence


def _read(path: Path, names: Sequence[str], groups: Mapping[str, str]) -> list[Split]:
    content = read_json(path)
    if not isinstance(content, list) or not all(_is_split(entry) for entry in content):
        raise UserError(f'{path}: malformed. Write a list of {{"train": [names], "val": [names]}}.')
    splits = [Split(tuple(entry["train"]), tuple(entry["val"])) for entry in content]
    for fold, split in enumerate(splits):
        train, val = set(split.train), set(split.val)
        if unknown := sorted((train | val) - set(names)):
            raise UserError(
                f"{path}: fold {fold} names {unknown[0]}, which is not a training case. Correct or delete the file."
            )
        if both := sorted(train & val):
            raise UserError(f"{path}: fold {fold} both trains on and validates with {both[0]}. Correct the file.")
        if not train or not val:
            raise UserError(f"{path}: fold {fold} has an empty '{'val' if train else 'train'}'. Correct the file.")
        shared = {groups[name] for name in train if name in groups} & {groups[n] for n in val if n in groups}
        if shared:
            raise UserError(
                f"{path}: fold {fold} has group {min(shared)} in both train and val. Keep the group in one of them."
            )
    return splits


def _is_split(entry: Any) -> bool:
    return isinstance(entry, dict) and all(
        isinstance(entry.get(side), list) and all(isinstance(name, str) for name in entry[side])
        for side in ("train", "val")
    )
