"""A student of an ensemble and how it compares with its teachers: the typed content of student.json."""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from autocrossdim.records.best import Best, contender_name
from autocrossdim.records.concise import Concise
from autocrossdim.records.workspace import Workspace
from autocrossdim.system.files import read_record, write_text
from autocrossdim.system.text import counted

FILE = "student.json"


class HeldOut(BaseModel):
    """A student beside its teachers on the same held-out cases, each segmented by folds that never saw it.

    Attributes:
        n_cases: Number of cases.
        dice: Mean foreground Dice of the student, without mirroring.
        teachers_dice: That of the teachers of the same fold, averaged, with mirroring, without post-processing.
        difference: The first minus the second.
        interval: Its 95 % interval over cases or groups; None with fewer than two groups.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_cases: int
    dice: float
    teachers_dice: float
    difference: float
    interval: tuple[float, float] | None


class Student(Concise, BaseModel):
    """A student of the ensemble that `find_best` chose.

    Attributes:
        name: Its configuration, such as `omnia_distilled`.
        teachers: Configurations that taught it.
        teachers_digest: Digest of the ensemble when this was written (`teachers_digest`).
        unlabelled: Number of unlabelled scans that it learned from.
        saving: Multiply-adds of the ensemble of all folds, with mirroring, divided by those of the student.
        held_out: The comparison; None until every fold of the student has been trained with the present teachers and
            scans.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    teachers: tuple[str, ...]
    teachers_digest: str
    unlabelled: int
    saving: float
    held_out: HeldOut | None = None

    def __str__(self) -> str:
        return self.sentence

    @property
    def sentence(self) -> str:
        """The comparison in words."""
        scans = f" and {counted(self.unlabelled, 'unlabelled scan')}" if self.unlabelled else ""
        taught = (
            f"{self.name}: one network that learned from {contender_name(self.teachers)} on the training cases{scans}. "
            f"Prediction takes {self.saving:.0f} times fewer multiply-adds than all folds of its teachers with "
            "mirroring."
        )
        found = self.held_out
        if found is None:
            return f"{taught} No comparison: not all of its folds are trained with these teachers and scans."
        ends = found.interval
        interval = "" if ends is None else f", 95 % interval {ends[0]:+.3f} to {ends[1]:+.3f}"
        return (
            f"{taught} On {found.n_cases} held-out cases, its mean Dice is {found.dice:.3f}, that of its teachers "
            f"{found.teachers_dice:.3f} (difference {found.difference:+.3f}{interval}; one fold of each without "
            "post-processing, the teachers with mirroring)."
        )

    @classmethod
    def read(cls, path: Path) -> "Student":
        """Read student.json.

        Raises:
            UserError: The file is missing or damaged.
        """
        return read_record(cls, path, remedy="Run `autocrossdim distil` again, or delete it.")

    def write(self, workspace: Workspace) -> None:
        """Write student.json beside the folds of the student."""
        write_text(workspace.model(self.name) / FILE, self.model_dump_json(indent=2) + "\n")


def students(workspace: Workspace, best: Best) -> list[Student]:
    """Return the students in a workspace that this ensemble taught.

    Raises:
        UserError: A file is damaged.
    """
    found = [Student.read(path) for path in sorted(workspace.root.glob(f"models/*/{FILE}"))]
    return [student for student in found if student.teachers_digest == teachers_digest(best, best.folds)]


def teachers_digest(best: Best, folds: Sequence[int | str]) -> str:
    """Return a digest of what folds of an ensemble teach: their checkpoints and the temperature."""
    networks = sorted((key, known) for key, known in best.checkpoints.items() if _fold(key) in map(str, folds))
    return sha256(repr([networks, best.configurations, best.calibration.temperature]).encode()).hexdigest()


def _fold(key: str) -> str:
    """Return the fold of a key of `Best.checkpoints`, such as `omnia/fold_0`."""
    return key.rpartition("fold_")[2]
