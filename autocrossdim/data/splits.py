"""Cross-validation: the training and validation cases of each fold."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autocrossdim.data.dataset import Dataset
from autocrossdim.system.errors import UserError
from autocrossdim.system.files import read_json, reading, write_json
from autocrossdim.system.text import counted, listed

FOLDS = 5
SEED = 12345  # as in nnU-Net, so that its folds can be compared case by case

CORRECT = "Correct the file."
REGROUPED = (
    "If 'groups' in dataset.json is right, make new folds with `autocrossdim plan_and_preprocess --overwrite` and "
    "train them with --restart; else correct it."
)
CHANGED = "If cases were added or removed, run `autocrossdim plan_and_preprocess` again; else correct the file."


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
    members = _members(cases, groups)
    number = len(set(members))
    grouped = number < len(cases)
    unit = "groups of cases" if grouped else "cases"

    if number < 2:
        what = "one group of cases" if grouped else counted(len(cases), "case")
        return [], f"Only {what}: no case can be held out for validation, so only `--fold all` can be trained."
    if number < FOLDS:
        folds = LeaveOneGroupOut().split(cases, groups=members)
        sentence = f"Only {number} {unit}: {number} folds; each uses one of them for validation."
    elif presence is not None and len({frozenset(presence[name]) for name in names}) > 1:
        fold_of = _spread(members, [presence[name] for name in cases], np.full(number, -1), FOLDS)
        folds = ((np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)) for fold in range(FOLDS))
        sentence = f"{FOLDS} folds over {len(cases)} cases. Labels that some cases lack are distributed evenly."
        sentence += f" The cases of each of {number} groups stay together." if grouped else ""
    elif grouped:
        folds = GroupKFold(FOLDS).split(cases, groups=members)
        sentence = f"{FOLDS} folds over {len(cases)} cases. The cases of each of {number} groups stay together."
    else:
        folds = KFold(FOLDS, shuffle=True, random_state=SEED).split(cases)
        sentence = f"{FOLDS} folds over {len(cases)} cases, the same folds as in nnU-Net."
    return [Split(tuple(map(str, cases[a])), tuple(map(str, cases[b]))) for a, b in folds], sentence


def extend_splits(
    splits: Sequence[Split],
    names: Collection[str],
    groups: Mapping[str, str],
    presence: Mapping[str, Collection[int]] | None = None,
    *,
    copies: Mapping[str, str] | None = None,
) -> list[Split]:
    """Return the folds of a cross-validation after cases were added to the dataset or removed from it.

    No other case moves: what fold k trained on is never validated by fold k. For this reason, a renamed case joins the
    fold of the case that it was. A new case joins the fold of its group; other new cases are distributed like those of
    `make_splits`, to the folds that have their labels least.

    Args:
        splits: one or more folds in which every case is validated exactly once (`is_cross_validation`).
        names: all present training cases.
        groups: as for `make_splits`.
        presence: as for `make_splits`, of all present cases.
        copies: new case -> earlier case with the same images, present or not; None if there are none.

    Returns:
        As many folds as before. One of them may be left without cases if cases were removed.
    """
    fold_of = {name: fold for fold, split in enumerate(splits) for name in split.val}
    fold_of |= {new: fold_of[old] for new, old in (copies or {}).items() if new not in fold_of and old in fold_of}
    cases = sorted(names)
    members = _members(cases, groups)
    fixed = np.full(len(set(members)), -1)
    for name, member in zip(cases, members, strict=True):
        if name in fold_of:
            fixed[member] = fold_of[name]
    held = [() if presence is None else presence[name] for name in cases]
    for name, fold in zip(cases, _spread(members, held, fixed, len(splits)), strict=True):
        fold_of.setdefault(name, int(fold))
    new = [name for name in cases if not any(name in split.val for split in splits)]
    return [
        Split(
            train=(*(n for n in split.train if n in names), *(n for n in new if fold_of[n] != fold)),
            val=(*(n for n in split.val if n in names), *(n for n in new if fold_of[n] == fold)),
        )
        for fold, split in enumerate(splits)
    ]


def is_cross_validation(splits: Sequence[Split]) -> bool:
    """Return whether every case is validated exactly once, by a fold that trains on all others."""
    validated = [name for split in splits for name in split.val]
    return len(set(validated)) == len(validated) and all(
        set(split.train) == set(validated) - set(split.val) for split in splits
    )


def _members(cases: Iterable[str], groups: Mapping[str, str]) -> np.ndarray:
    """Return the group of each case, shape (n,), numbered from 0; a case without one is a group of its own."""
    keys = [("group", groups[name]) if name in groups else ("case", name) for name in cases]
    index = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    return np.array([index[key] for key in keys], dtype=int)


def _spread(members: np.ndarray, presence: Sequence[Collection[int]], fixed: np.ndarray, folds: int) -> np.ndarray:
    """Return the fold of each case: groups with the rarest label first, each to the fold that has it least.

    This is the iterative stratification of Sechidis et al. (2011), applied to groups instead of samples.

    Args:
        members: group of each case, shape (n,), numbered from 0.
        presence: label values of each case.
        fixed: fold of each group that has one already, -1 for the others.
        folds: number of folds.
    """
    labels = sorted(set[int]().union(*presence))
    holds = np.array([[label in held for label in labels] for held in presence], dtype=int).reshape(len(members), -1)
    groups = np.zeros((len(fixed), len(labels)), dtype=int)
    np.add.at(groups, members, holds)
    sizes = np.bincount(members, minlength=len(fixed))
    order = np.random.default_rng(SEED).permutation(len(groups))
    fold_of_group = fixed.copy()
    filled, cases = np.zeros((folds, len(labels)), dtype=int), np.zeros(folds, dtype=int)
    np.add.at(filled, fixed[fixed >= 0], groups[fixed >= 0])
    np.add.at(cases, fixed[fixed >= 0], sizes[fixed >= 0])
    while (fold_of_group < 0).any():
        left = [group for group in order if fold_of_group[group] < 0]
        counts = groups[left].sum(axis=0)
        rarest = min(np.flatnonzero(counts), key=lambda label: counts[label], default=None)
        # Groups without any label come last and even out the sizes.
        chosen = left if rarest is None else [group for group in left if groups[group, rarest]]
        for group in sorted(chosen, key=lambda group: -sizes[group]):
            lacks = filled[:, rarest] if rarest is not None else cases
            fold = min(range(folds), key=lambda fold: (lacks[fold], cases[fold], fold))
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
        exists = path.exists()
    if exists:
        return _checked(path, _read(path), names, dataset.groups, CHANGED), f"Folds of {path}."
    file = _own_splits(dataset)
    if file is not None:
        splits = _checked_own(file, dataset)
        sentence = f"{counted(len(splits), 'fold')} taken from {file}."
    else:
        splits, sentence = make_splits(names, dataset.groups, presence)
    _write(path, splits)
    return splits, sentence


def update_splits(
    dataset: Dataset,
    path: Path,
    added: Collection[str],
    presence: Mapping[str, Collection[int]],
    *,
    copies: Mapping[str, str] | None = None,
) -> tuple[list[Split], str]:
    """Update splits.json at `path` after cases were added to the dataset or removed from it.

    The folds are those of splits_final.json, then splits.json, in the raw dataset; else the existing ones, extended.

    Args:
        dataset: raw dataset with the training cases.
        path: path of splits.json; if it does not exist or has no fold, folds are made as by `load_or_make_splits`.
        added: names of the new cases.
        presence: as for `make_splits`, of all present cases.
        copies: as for `extend_splits`.

    Returns:
        The folds, and a sentence that says where the new cases are validated.

    Raises:
        UserError: a splits file of the raw dataset lacks a new case, or the existing folds cannot be extended.
    """
    names = [case.name for case in dataset.training_cases()]
    file = _own_splits(dataset)
    with reading():
        before = _read(path) if path.exists() else []
    if file is not None:
        splits = _checked_own(file, dataset)
        if lacking := sorted(set(added) - {name for split in splits for name in (*split.train, *split.val)}):
            raise UserError(
                f"{file}: no fold names {listed(lacking, 10)}, which {'was' if len(lacking) == 1 else 'were'} added to "
                "the dataset. Add the new cases to the folds, or remove the file: they are then distributed over "
                f"the folds of {path}."
            )
    elif not before:
        path.unlink(missing_ok=True)
        return load_or_make_splits(dataset, path, presence)
    else:
        if not is_cross_validation(before):
            raise UserError(
                f"{path}: some cases are not validated exactly once, so it is not known where {listed(added, 10)} "
                "belong. Give the folds in splits_final.json in the raw dataset, or make new ones with --overwrite."
            )
        splits = extend_splits(before, names, dataset.groups, presence, copies=copies)
        _checked(path, splits, names, dataset.groups, "Make new folds with --overwrite.")
    _write(path, splits)
    if file is not None:
        return splits, f"Folds of {file}.{_places(splits, added)}"
    other = set(added) - set(copies or {})
    return splits, f"{_kept(copies or {})}All other cases stay in their folds.{_places(splits, other)}"


def own_splits_fault(dataset: Dataset) -> str | None:
    """Return what is wrong with the splits file of the raw dataset; None if it has none, or a good one."""
    try:
        if (file := _own_splits(dataset)) is not None:
            _checked_own(file, dataset)
    except UserError as error:
        return str(error)
    return None


def _kept(copies: Mapping[str, str]) -> str:
    """Return a sentence on the cases that were recognised under new names, with a space after it; empty without any."""
    if not copies:
        return ""
    new, old = listed(copies, 10), listed(copies.values(), 10)
    if len(copies) == 1:
        return f"{new} is a renamed copy of {old}; it stays in its fold. "
    return f"{new} are renamed copies of {old}; they stay in their folds. "


def _places(splits: Sequence[Split], added: Collection[str]) -> str:
    """Return a sentence on the folds that validate the new cases, with a space before it; empty without any."""
    new = {fold: [name for name in split.val if name in added] for fold, split in enumerate(splits)}
    places = [f"{listed(names, 10)} by fold {fold}" for fold, names in new.items() if names]
    return f" New cases are validated: {'; '.join(places)}." if places else ""


def _own_splits(dataset: Dataset) -> Path | None:
    """Return the splits file of the raw dataset, if it has one."""
    with reading():
        files = (dataset.path / "splits_final.json", dataset.path / "splits.json")
        return next((file for file in files if file.exists()), None)


def _write(path: Path, splits: Sequence[Split]) -> None:
    write_json(path, [{"train": list(split.train), "val": list(split.val)} for split in splits])


def _read(path: Path) -> list[Split]:
    content = read_json(path)
    if not isinstance(content, list) or not all(_is_split(entry) for entry in content):
        raise UserError(f'{path}: malformed. Write a list of {{"train": [names], "val": [names]}}.')
    return [Split(tuple(entry["train"]), tuple(entry["val"])) for entry in content]


def _checked_own(file: Path, dataset: Dataset) -> list[Split]:
    """Return the folds in a splits file of the raw dataset, or raise a UserError that names the fault."""
    splits = _read(file)
    if not splits:
        raise UserError(f"{file}: contains no folds. Add one, or remove the file; folds are then drawn as in nnU-Net.")
    names = [case.name for case in dataset.training_cases()]
    return _checked(file, splits, names, dataset.groups, CORRECT)


def _checked(
    path: Path, splits: list[Split], names: Sequence[str], groups: Mapping[str, str], remedy: str
) -> list[Split]:
    """Return the folds, or raise a UserError that names the fault and the remedy."""
    for fold, split in enumerate(splits):
        train, val = set(split.train), set(split.val)
        if unknown := sorted((train | val) - set(names)):
            raise UserError(f"{path}: fold {fold} names {unknown[0]}, which is not a training case. {remedy}")
        if both := sorted(train & val):
            raise UserError(f"{path}: fold {fold} both trains on and validates with {both[0]}. {remedy}")
        if not train or not val:
            raise UserError(f"{path}: fold {fold} has an empty '{'val' if train else 'train'}'. {remedy}")
        shared = {groups[name] for name in train if name in groups} & {groups[n] for n in val if n in groups}
        if shared:
            if remedy == CHANGED:
                remedy = REGROUPED
            raise UserError(f"{path}: fold {fold} has group {min(shared)} in both train and val. {remedy}")
    return splits


def _is_split(entry: Any) -> bool:
    return isinstance(entry, dict) and all(
        isinstance(entry.get(side), list) and all(isinstance(name, str) for name in entry[side])
        for side in ("train", "val")
    )
