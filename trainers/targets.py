"""From the label values of a patch to the target of the loss."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from autocrossdim.records.labels import Labels
from autocrossdim.system.errors import UserError
from trainers.loss import IGNORED
from trainers.partial import leave_open

UNDECLARED = -2  # target of a label value that dataset.json does not declare


class Targets:
    """Turns label values into targets, with a table: many times faster than the comparisons of `Labels.to_regions`.

    Args:
        labels: Labels of the dataset.
        class_sets: Sets of classes that targets may name, see `trainers.partial`. Without them, background of cases in
            which not every label was annotated is ignored.
    """

    def __init__(self, labels: Labels, class_sets: Sequence[Sequence[int]] = ()) -> None:
        self.labels, self.class_sets = labels, class_sets
        self._table = _table(labels)
        # In most datasets, values are the classes 0, 1, 2, ... and none is to be ignored.
        self._values_are_classes = not labels.has_regions and torch.equal(
            self._table[0, :-1], torch.arange(len(labels.values), dtype=torch.int16)
        )

    def __call__(self, label: np.ndarray, annotated: Sequence[str] | None = None) -> np.ndarray:
        """Return indices (*patch) of classes or sets of classes, or regions (R, *patch), int16.

        Args:
            label: Label values, shape (*patch).
            annotated: Names of the labels that were annotated in the case; None if all were.

        Raises:
            UserError: A value is not declared in dataset.json.
        """
        target = self._looked_up(label)
        return target if annotated is None else leave_open(target, self.labels, annotated, self.class_sets)

    def _looked_up(self, label: np.ndarray) -> np.ndarray:
        """Return class indices (*patch) or regions (R, *patch), int16."""
        if self._values_are_classes and label.max() <= self.labels.values[-1]:
            return label.astype(np.int16)
        values = torch.from_numpy(label.astype(np.int32)).flatten().clamp_(0, self._table.shape[1] - 1)
        looked_up = torch.stack([row.index_select(0, values) for row in self._table])
        target: np.ndarray = looked_up.numpy().reshape(-1, *label.shape)
        if target.min() == UNDECLARED:
            found = np.unique(label[target[0] == UNDECLARED]).tolist()
            raise UserError(
                f"Label value(s) {found} are not declared in dataset.json. Add them under `labels`, or correct the "
                "label files and preprocess again."
            )
        return target if self.labels.has_regions else target[0]


def _table(labels: Labels) -> Tensor:
    """Return the target of each label value from 0 to the highest, and last of any other, shape (1 or R, values)."""
    values = np.array(labels.values)
    highest = values[-1] if labels.unannotated is None else labels.unannotated
    table = np.full((len(labels.foreground) if labels.has_regions else 1, highest + 2), UNDECLARED, dtype=np.int16)
    table[:, values] = labels.to_regions(values) if labels.has_regions else labels.to_index(values)
    if labels.unannotated is not None:
        table[:, labels.unannotated] = IGNORED
    return torch.from_numpy(table)
