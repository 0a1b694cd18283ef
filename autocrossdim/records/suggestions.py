"""Which unlabelled scans to annotate next, and the measurements behind the choice: typed files of the workspace."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from autocrossdim.records.concise import Concise
from autocrossdim.records.sources import FileVersion
from autocrossdim.system.files import read_record, write_text
from autocrossdim.system.text import counted, listed

MethodName = Literal["stratified", "random"]


class ScanMeasures(BaseModel):
    """Measurements of one unlabelled scan by a trained model.

    Attributes:
        case: Name of the scan.
        model: Digest of the model.
        files: Versions of the image files.
        entropy: Mean entropy over all voxels, in nats.
        label_entropy: Mean entropy over the voxels segmented as each label; labels that were not found are left out.
        expected_dice: Mean expected Dice over the labels found; None if nothing was found.
        unlike_training: Distance of the image to the training data in units of the limit; None if it is unknown.
        slice_axis: Array axis across which the slices lie.
        extent: First and last slice with a segmented label; those of the image if nothing was found.
        features: Numbers by which scans are compared with each other.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    case: str
    model: str
    files: tuple[FileVersion, ...]
    entropy: float
    label_entropy: dict[str, float]
    expected_dice: float | None
    unlike_training: float | None
    slice_axis: int
    extent: tuple[int, int]
    features: tuple[float, ...]


class Suggestion(BaseModel):
    """One scan to annotate.

    Attributes:
        case: Name of the scan.
        group: Group (patient) of the scan; None if it is not in one.
        why: Why it was chosen.
        slices: Slices to annotate, counted from 0; empty if the whole scan is to be annotated.
        slice_axis: Axis of the file that counts them: `x`, `y` or `z`; None without slices.
        expected_dice: Expected Dice of the draft; None if nothing was found.
        unlike_training: Distance of the image to the training data in units of the limit; None if it is unknown.
        images: Files of the scan.
        draft: Segmentation by the model.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    case: str
    group: str | None
    why: str
    slices: tuple[int, ...] = ()
    slice_axis: Literal["x", "y", "z"] | None
    expected_dice: float | None
    unlike_training: float | None
    images: tuple[Path, ...]
    draft: Path


class Suggestions(Concise, BaseModel):
    """Scans to annotate, in order.

    Attributes:
        dataset: Name of the dataset.
        method: Query method.
        seed: Seed of the random numbers.
        n_annotated: Number of training cases when the choice was made.
        n_scans: Number of unlabelled scans to choose from.
        calibrated: Whether the expected Dice was calibrated on held-out cases.
        suggestions: The scans.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str
    method: MethodName
    seed: int
    n_annotated: int
    n_scans: int
    calibrated: bool
    suggestions: tuple[Suggestion, ...]

    def __str__(self) -> str:
        names = listed([each.case for each in self.suggestions])
        scans = f"{len(self.suggestions)} of {counted(self.n_scans, 'unlabelled scan')}"
        return f"{self.dataset}, {scans} to annotate next: {names}"

    @classmethod
    def read(cls, path: Path) -> "Suggestions":
        """Read annotate_next.json.

        Raises:
            UserError: The file is missing or damaged.
        """
        return read_record(cls, path, remedy="Run `autocrossdim annotate_next` again, or delete it.")

    def write(self, path: Path) -> None:
        """Write annotate_next.json."""
        write_text(path, self.model_dump_json(indent=2) + "\n")
