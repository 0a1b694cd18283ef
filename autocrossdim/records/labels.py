"""What the values of a label file mean, and how they are mapped to the outputs of a network and back."""

from collections import Counter
from collections.abc import Collection, Sequence
from itertools import compress
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer, model_validator

from autocrossdim.system.errors import UserError
from autocrossdim.system.text import listed

IGNORE_INDEX = -1  # what `Labels.to_index` returns for a voxel to ignore

Array = npt.NDArray[Any]


class Labels(BaseModel):
    """The labels of a dataset: exclusive classes, or regions that may overlap.

    Value 0 is background whether it was declared or not. Files may have any other values, with gaps; the outputs of a
    network are numbered without gaps.

    Attributes:
        foreground: Label values of each class or region, by name, in the order of the network's outputs (classes: by
            value; regions: as declared).
        ignore: Value of voxels that were not annotated, the highest of all; None if there is none.
        regions_class_order: Value to paint for each region, later ones over earlier ones; None for classes.
        unannotated_slices: "empty" if slices without any label were not annotated; None if every slice was.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    foreground: dict[str, tuple[int, ...]]
    ignore: int | None = None
    regions_class_order: tuple[int, ...] | None = None
    unannotated_slices: Literal["empty"] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        """Check what `from_dataset_json` guarantees, for labels that were read from another file."""
        values = [value for values in self.foreground.values() for value in values]
        highest = max(values, default=0) if self.ignore is None else self.ignore
        if not all(self.foreground.values()) or not 0 < min(values, default=0) <= highest < 2**16:
            raise ValueError("label values must be whole numbers from 1 to 65535, 'ignore' the highest")
        if self.regions_class_order is None:
            if len(values) != len(self.foreground) or values != sorted(set(values)):
                raise ValueError("every class needs one value of its own, in ascending order")
        elif len(self.regions_class_order) != len(self.foreground) or not set(self.regions_class_order) <= set(values):
            raise ValueError("regions_class_order must name a value for each region")
        return self

    @model_serializer(mode="wrap")
    def _as_before(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave `unannotated_slices` out where it is not used, so that earlier plans and stores remain valid."""
        content: dict[str, Any] = dump(self)
        if self.unannotated_slices is None:
            content.pop("unannotated_slices", None)
        return content

    @classmethod
    def from_dataset_json(cls, labels: dict[str, Any], regions_class_order: Sequence[int] | None = None) -> "Labels":
        """Read the entries `labels` and `regions_class_order` of a dataset.json.

        Args:
            labels: {"background": 0, "x": 1}, or regions {"whole": [1, 2], ...}, optionally with
                "ignore"; or the older {"0": "background", "1": "x"}.
            regions_class_order: Value to paint for each region, needed if there are regions.

        Raises:
            UserError: The labels are invalid. The caller adds the name of the file to the message.
        """
        if not isinstance(labels, dict) or not labels:
            raise UserError('labels: must be {"background": 0, "name": 1, ...}.')
        if all(isinstance(value, str) for value in labels.values()):
            if repeated := sorted({name for name, number in Counter(labels.values()).items() if number > 1}):
                raise UserError(f"labels: {listed(repeated)} is the name of several values. Give each its own name.")
            labels = {name: int(value) if value.isdecimal() else value for value, name in labels.items()}
        if not all(name.strip() for name in labels):
            raise UserError("labels: a label has no name. Give it one.")
        declared = {name: _values(name, value) for name, value in labels.items()}

        ignore = declared.pop("ignore", None)
        if ignore is not None and len(ignore) != 1:
            raise UserError("labels: 'ignore' must be one value.")
        if declared.get("background", (0,)) != (0,):
            raise UserError("labels: 'background' must be 0. Change the label files, or name that label otherwise.")
        foreground = {name: values for name, values in declared.items() if values != (0,)}
        if len(declared) - len(foreground) > 1:
            empty = [name for name, values in declared.items() if values == (0,) and name != "background"]
            raise UserError(f"labels: {listed(empty)} has the value 0, which is background. Use another value.")
        if not foreground:
            raise UserError("labels: nothing but background is declared. Add the structures to segment.")
        for name, values in foreground.items():
            if 0 in values:
                raise UserError(f"labels: region '{name}' contains 0, which is background.")
        every = [value for values in foreground.values() for value in values]
        if ignore is not None and ignore[0] <= max(every):
            raise UserError(f"labels: 'ignore' ({ignore[0]}) must be the highest value; {max(every)} is higher.")
        if len(set(foreground.values())) < len(foreground):
            raise UserError("labels: two names have the same value. Every label needs a value of its own.")

        order = None
        if any(len(values) > 1 for values in foreground.values()):
            order = tuple(regions_class_order) if isinstance(regions_class_order, list | tuple) else ()
            remedy = "List the value to write for each region, in the order of labels."
            if regions_class_order is None:
                raise UserError(f"regions_class_order: missing, but labels declares regions. {remedy}")
            if len(order) != len(foreground):
                raise UserError(
                    f"regions_class_order: has {len(order)} entries for {len(foreground)} regions. {remedy}"
                )
            if unknown := [value for value in order if value not in every]:
                raise UserError(f"regions_class_order: names {listed(unknown)}, which is not a label value. {remedy}")
            if len(set(order)) < len(order):
                raise UserError(
                    f"regions_class_order: {list(order)} writes the same value for several regions, so they could not "
                    f"be distinguished in a segmentation. {remedy}"
                )
        else:
            foreground = dict(sorted(foreground.items(), key=lambda item: item[1]))
        return cls(foreground=foreground, ignore=ignore[0] if ignore else None, regions_class_order=order)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes or regions, background left out, in the order of the outputs."""
        return tuple(self.foreground)

    @property
    def has_regions(self) -> bool:
        """Whether outputs are regions that may overlap (sigmoid) rather than exclusive classes (softmax)."""
        return self.regions_class_order is not None

    @property
    def num_outputs(self) -> int:
        """Number of channels of the network's output: one per region, or background and one per class."""
        return len(self.foreground) + (0 if self.has_regions else 1)

    @property
    def values(self) -> tuple[int, ...]:
        """Every value a label file may hold, ascending: background, foreground, ignore."""
        foreground = {value for values in self.foreground.values() for value in values}
        return (0, *sorted(foreground), *(() if self.ignore is None else (self.ignore,)))

    @property
    def unannotated(self) -> int | None:
        """Value in arrays of voxels that were not annotated: `ignore`, else one above all others; None if all were."""
        if self.unannotated_slices is None or self.ignore is not None:
            return self.ignore
        return self.values[-1] + 1

    def only(self, names: Collection[str]) -> "Labels":
        """Return these labels with some of the classes or regions only."""
        kept = [name in names for name in self.foreground]
        order = self.regions_class_order
        return self.model_copy(
            update={
                "ignore": self.unannotated,  # arrays keep this value, whichever labels are left
                "foreground": dict(compress(self.foreground.items(), kept)),
                "regions_class_order": None if order is None else tuple(compress(order, kept)),
            }
        )

    def to_index(self, seg: Array) -> npt.NDArray[np.int16]:
        """Map label values of any shape to output indices 0..n; voxels to ignore become -1. For classes only.

        Raises:
            UserError: A value that is not declared.
        """
        assert not self.has_regions, "regions overlap and have no index"
        highest = self.values[-1] if self.unannotated is None else self.unannotated
        undeclared = -2
        table = np.full(highest + 2, undeclared, np.int16)
        table[list(self.values)] = np.arange(len(self.values))
        if self.unannotated is not None:
            table[self.unannotated] = IGNORE_INDEX
        # Whatever is out of range reads the table's last entry, which no declared value has.
        index: npt.NDArray[np.int16] = table[np.clip(seg.astype(np.int64, copy=False), -1, highest + 1)]
        if (index == undeclared).any():
            found = sorted({int(value) for value in np.unique(seg[index == undeclared])})
            raise UserError(f"label value(s) {found} are not declared in dataset.json.")
        return index

    def to_regions(self, seg: Array) -> npt.NDArray[np.uint8]:
        """Return each region (or class, without background) as 0 or 1, of shape (R, *seg.shape)."""
        return np.stack([np.isin(seg, values) for values in self.foreground.values()]).astype(np.uint8)

    def ignored(self, seg: Array) -> npt.NDArray[np.bool_]:
        """Return where `seg` is not annotated, same shape."""
        mask: npt.NDArray[np.bool_] = seg == (-1 if self.unannotated is None else self.unannotated)
        return mask

    def from_index(self, index: Array) -> Array:
        """Map output indices 0..n, any shape, back to label values (uint8, or uint16 if needed)."""
        values = np.array([0, *(values[0] for values in self.foreground.values())], dtype=self._dtype)
        return values[index]

    def from_regions(self, inside: Array) -> Array:
        """Paint regions, `inside` (R, ...) of bool (probability > 0.5), as label values of shape (...)."""
        assert self.regions_class_order is not None
        seg = np.zeros(inside.shape[1:], dtype=self._dtype)
        for mask, value in zip(inside, self.regions_class_order, strict=True):
            seg[mask.astype(bool, copy=False)] = value
        return seg

    @property
    def _dtype(self) -> type[np.unsignedinteger[Any]]:
        return np.uint8 if self.values[-1] <= np.iinfo(np.uint8).max else np.uint16


def _values(name: str, declared: Any) -> tuple[int, ...]:
    """Label values of one entry, ascending."""
    values = declared if isinstance(declared, list | tuple) else [declared]
    if not values or not all(isinstance(v, int) and not isinstance(v, bool) and 0 <= v < 2**16 for v in values):
        raise UserError(f"labels: '{name}' must be a whole number from 0 to 65535 or a list of them, not {declared!r}.")
    return tuple(sorted(set(values)))
