"""The cases that a distilled network learns from: labelled and unlabelled ones, with the teachers' probabilities."""

from dataclasses import dataclass, replace

from autocrossdim.commands.plugins import FoldTask
from autocrossdim.preprocessing.soft_labels import SoftLabels
from autocrossdim.preprocessing.store import Store, StoredCase


@dataclass(frozen=True)
class DistilledCases:
    """What a `PatchLoader` draws from instead of a store.

    Attributes:
        labelled: Store of the training cases.
        unlabelled: Store of the unlabelled scans; None without any.
        soft_labels: Soft labels of all of them.
        training: Names of the training cases.
    """

    labelled: Store
    unlabelled: Store | None
    soft_labels: SoftLabels
    training: tuple[str, ...]

    @classmethod
    def of(cls, task: FoldTask) -> "DistilledCases":
        """Return the cases of a fold that has soft labels."""
        assert task.soft_labels is not None
        scans = None if task.unlabelled is None else task.unlabelled.store
        return cls(task.store, scans, task.soft_labels, task.split.train)

    def open(self, name: str) -> StoredCase:
        """Open a case with its soft labels; of an unlabelled scan, no label counts as annotated.

        Patches are also drawn where nothing was annotated. Where annotation is incomplete, patches centred on a
        class are centred where the teachers see it.
        """
        soft = self.soft_labels.open(name)
        if self.unlabelled is not None and name not in self.training:
            voxels = self.soft_labels.voxels(name)
            return replace(self.unlabelled.open(name), soft_label=soft, annotated_labels=(), voxels=voxels)
        case = self.labelled.open(name)
        if all(each is None for each in (case.annotated_labels, case.annotated_slices, case.annotated_voxels)):
            return replace(case, soft_label=soft)
        voxels = case.voxels | self.soft_labels.voxels(name)
        return replace(case, soft_label=soft, annotated_slices=None, annotated_voxels=None, voxels=voxels)


def names_to_draw(task: FoldTask) -> tuple[str, ...]:
    """Return the names of all cases; those of the training cases are repeated if there are more scans than cases.

    About half of the patches are then labelled.
    """
    scans = () if task.unlabelled is None else task.unlabelled.names
    return task.split.train * max(1, round(len(scans) / len(task.split.train))) + scans
