"""What made a segmentation: the networks and the options that change it. A small file per case beside the results."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from autocrossdim.records.best import KeepLargest
from autocrossdim.records.calibration import CaseScore
from autocrossdim.system.files import read_record, write_json
from autocrossdim.system.text import listed

DIRECTORY = "origin"  # inside the output directory, so that segmentations can be evaluated as a directory
STAGE_ONLY = " (previous stage)"  # after the name of a network that is not averaged


class Origin(BaseModel):
    """The model that made a segmentation.

    Attributes:
        networks: SHA-256 of the weights of each network as trained, by `CONFIGURATION/fold_K`. Previous stages of
            cascades are among them; `STAGE_ONLY` follows the names of those that are not averaged as well.
        mirroring: Whether mirrored versions of the image were averaged.
        image_statistics: Share of the image's own statistics in batch norms.
        postprocessing: Steps of post-processing.
        temperature: Temperature of the probabilities, which changes no label.
        case_score: Map from the confidence of a case to the expected Dice, which changes no label.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    networks: dict[str, str]
    mirroring: bool
    image_statistics: float = 0.0
    postprocessing: tuple[KeepLargest, ...] = ()
    temperature: float = 1.0
    case_score: CaseScore = CaseScore()

    @classmethod
    def read(cls, output: Path, case: str) -> "Origin | None":
        """Read `origin/CASE.json` below `output`; None if it does not exist.

        Raises:
            UserError: The file is damaged.
        """
        path = _file(output, case)
        return read_record(cls, path, remedy="Delete it.") if path.exists() else None

    def write(self, output: Path, case: str) -> None:
        """Write `origin/CASE.json` below `output`."""
        write_json(_file(output, case), self.model_dump(mode="json"))

    def differences(self, other: "Origin", *, calibration: bool) -> list[str]:
        """Return what differs, in words.

        Args:
            other: Origin of another segmentation.
            calibration: Whether to compare the calibration, on which probabilities and uncertainty depend.
        """
        found = []
        if self.networks.keys() != other.networks.keys():
            found.append(f"networks: {listed(self.networks, 10)}, not {listed(other.networks, 10)}")
        changed = [name for name, digest in self.networks.items() if other.networks.get(name, digest) != digest]
        if changed:
            found.append(f"weights of {listed(changed)}")
        if self.mirroring != other.mirroring:
            found.append("mirroring")
        if self.image_statistics != other.image_statistics:
            found.append("image statistics")
        if self.postprocessing != other.postprocessing:
            found.append("post-processing")
        if calibration and (self.temperature, self.case_score) != (other.temperature, other.case_score):
            found.append("calibration")
        return found


def remove_origin(output: Path, case: str) -> None:
    """Remove `origin/CASE.json` below `output`, because something else makes the segmentation."""
    _file(output, case).unlink(missing_ok=True)


def _file(output: Path, case: str) -> Path:
    return output / DIRECTORY / f"{case}.json"
