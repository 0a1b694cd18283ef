"""Review segmentations in 3D Slicer, the least certain first, and add corrected ones to the training data.

    Slicer --python-script review.py IMAGES SEGMENTATIONS DATASET

IMAGES and SEGMENTATIONS are the `-i` and `-o` of `autocrossdim predict`, preferably with `--uncertainty`, or imagesUn
and the drafts of `autocrossdim annotate_next`, of which the suggested ones are shown first. DATASET is the directory of
the training data, with dataset.json. "Save" copies the images of a case to imagesTr and writes its segmentation to
labelsTr. Where only some slices are to be annotated, slices that were neither suggested nor changed are saved without
labels, because every slice with a label counts as annotated. Cases that have a label in labelsTr are not shown again.
This file needs nothing but 3D Slicer.
"""

import csv
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COLOURS = (
    *("#56b4e9", "#e69f00", "#f0e442", "#2fc79b", "#ff8f6b", "#e79ac7"),
    *("#e1fff0", "#2dff69", "#a596ff", "#2dffff", "#b4ffb4", "#d2ff00", "#c3b44b"),
    *("#ffff96", "#f0c3d2", "#87c378", "#a5d2ff", "#f0c34b", "#b4e187", "#87e1a5"),
)
"""As in the report."""


@dataclass(frozen=True)
class Case:
    """A case to review.

    Attributes:
        name: Name of the case.
        images: One file per channel.
        segmentation: The prediction.
        maps: Uncertainty maps, if there are any.
        expected_dice: As in uncertainty.csv; empty if it is unknown.
        slices: Slices to annotate, as in annotate_next.csv; empty if the whole scan is to be annotated.
        slice_axis: Axis of the file that counts them: `x`, `y` or `z`; empty without slices.
    """

    name: str
    images: list[Path]
    segmentation: Path
    maps: list[Path]
    expected_dice: str
    slices: tuple[int, ...] = ()
    slice_axis: str = ""

    def clear_unchecked(self, draft: Any, label: Any) -> None:
        """Remove the labels of slices that were neither suggested nor changed; nothing if no slices were suggested.

        Args:
            draft: The prediction, shape (Z, Y, X).
            label: The corrected segmentation, which is changed.
        """
        if not self.slices:
            return
        before = (slice(None),) * "zyx".index(self.slice_axis)
        for number in range(label.shape[len(before)]):
            place = (*before, number)
            if number not in self.slices and (label[place] == draft[place]).all():
                label[place] = 0


@dataclass(frozen=True)
class Folders:
    """The three directories."""

    images: Path
    segmentations: Path
    dataset: Path

    def description(self) -> dict[str, Any]:
        """Return the content of dataset.json."""
        content: dict[str, Any] = json.loads((self.dataset / "dataset.json").read_text(encoding="utf-8"))
        return content

    def ending(self) -> str:
        """Return the file ending of the dataset."""
        return str(self.description()["file_ending"])

    def values(self) -> dict[int, str]:
        """Return the name of each label value; for a value of several regions, all their names."""
        names: dict[int, list[str]] = {}
        for name, values in self.description()["labels"].items():
            for value in values if isinstance(values, list) else [values]:
                names.setdefault(value, []).append(name)
        return {value: " + ".join(each) for value, each in sorted(names.items()) if value and "ignore" not in each}

    def label(self, case: Case) -> Path:
        """Return the path of the label of a case in the training data."""
        return self.dataset / "labelsTr" / f"{case.name}{self.ending()}"

    def cases(self) -> list[Case]:
        """Return the cases without a label in labelsTr: those of the list in its order, then the others by name."""
        ending, table = self.ending(), self._table()
        listed: dict[str, dict[str, str]] = {}
        if table.exists():
            with table.open(encoding="utf-8", newline="") as file:
                listed = {row["case"]: row for row in csv.DictReader(file)}
        files = sorted(self.segmentations.glob(f"[!.]*{ending}"))
        others = [name for file in files if (name := file.name[: -len(ending)]) not in listed]
        found = []
        for name in [*listed, *others]:
            row = listed.get(name, {})
            case = Case(
                name,
                self._images(name, ending),
                self.segmentations / f"{name}{ending}",
                sorted((self.segmentations / "uncertainty").glob(f"{name}_[ed]*{ending}")),
                row.get("expected_dice", ""),
                tuple(map(int, row.get("slices", "").split())),
                row.get("slice_axis", ""),
            )
            if case.images and case.segmentation.exists() and not self.label(case).exists():
                found.append(case)
        return found

    def _table(self) -> Path:
        """Return the list: annotate_next.csv beside its drafts, or uncertainty.csv of `predict`."""
        if self.segmentations.resolve().name == "annotate_next":
            return self.segmentations.resolve().with_suffix(".csv")
        return self.segmentations / "uncertainty.csv"

    def _images(self, name: str, ending: str) -> list[Path]:
        numbered = sorted(self.images.glob(f"{name}_[0-9][0-9][0-9][0-9]{ending}"))
        alone = self.images / f"{name}{ending}"
        return numbered or ([alone] if alone.exists() else [])

    def add(self, case: Case, write: Callable[[Path], object]) -> Path:
        """Add a case to the training data: its images first, then its label, under a temporary name until complete.

        Args:
            case: The case.
            write: Writes the label to a path.

        Returns:
            Path of the label.

        Raises:
            FileExistsError: The training data have a label of this name; it is never replaced.
        """
        label, ending = self.label(case), self.ending()
        if label.exists():
            raise FileExistsError(f"{label} exists already. Rename the case, or remove that label first.")
        for number, image in enumerate(case.images):
            target = self.dataset / "imagesTr" / f"{case.name}_{number:04d}{ending}"
            if not target.exists():
                _whole(target, lambda path, image=image: shutil.copyfile(image, path))  # type: ignore[misc]
        _whole(label, write)
        return label


def _whole(target: Path, write: Callable[[Path], object]) -> None:
    """Write a file under a temporary name with the same ending, then rename it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".writing.{target.name}")
    try:
        write(temporary)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


class Review:
    """A panel in 3D Slicer with the current case and buttons to save it or to go on."""

    def __init__(self, folders: Folders) -> None:
        import qt
        import slicer

        self.folders, self.remaining = folders, folders.cases()
        self.panel = qt.QDockWidget("autocrossdim review", slicer.util.mainWindow())
        self.text, inside = qt.QLabel(), qt.QWidget()
        layout = qt.QVBoxLayout(inside)
        layout.addWidget(self.text)
        for name, action in (("Save to labelsTr, next case", self.save), ("Next case without saving", self.next)):
            button = qt.QPushButton(name)
            button.clicked.connect(action)
            layout.addWidget(button)
        self.panel.setWidget(inside)
        slicer.util.mainWindow().addDockWidget(qt.Qt.LeftDockWidgetArea, self.panel)
        self.show()

    def show(self) -> None:
        """Load the first of the remaining cases."""
        import slicer

        slicer.mrmlScene.Clear(0)
        if not self.remaining:
            self.text.setText("No cases left to review.")
            return
        case = self.remaining[0]
        dice = f"\nexpected Dice {case.expected_dice}" if case.expected_dice else ""
        slices = ""
        if case.slices:
            slices = f"\nAnnotate slices {case.slice_axis}: {', '.join(map(str, case.slices))} (from 0).\n"
            slices += "Other slices are saved without labels unless you change them."
        self.text.setText(f"{case.name}{dice}{slices}\n{len(self.remaining)} to review")
        for path in reversed(case.maps + case.images):  # the first image is loaded last, and shown
            self.image = slicer.util.loadVolume(str(path))
        self.label = slicer.util.loadLabelVolume(str(case.segmentation), {"show": False})
        array = self.draft = slicer.util.arrayFromVolume(self.label).copy()
        self.segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", case.name)
        self.segmentation.CreateDefaultDisplayNodes()
        self.segmentation.SetReferenceImageGeometryParameterFromVolumeNode(self.label)
        self.segments = {}
        for number, (value, name) in enumerate(self.folders.values().items()):
            colour = [part / 255 for part in bytes.fromhex(COLOURS[number % len(COLOURS)][1:])]
            segment = self.segmentation.GetSegmentation().AddEmptySegment("", name, colour)
            mask = (array == value).astype("uint8")
            slicer.util.updateSegmentBinaryLabelmapFromArray(mask, self.segmentation, segment, self.label)
            self.segments[value] = segment
        slicer.util.selectModule("SegmentEditor")

    def save(self) -> None:
        """Write the corrected segmentation to labelsTr, with the values of dataset.json."""
        import slicer

        if not self.remaining:
            return
        array = self.draft * 0
        for value, segment in self.segments.items():
            mask = slicer.util.arrayFromSegmentBinaryLabelmap(self.segmentation, segment, self.label)
            array[mask > 0] = value
        self.remaining[0].clear_unchecked(self.draft, array)
        slicer.util.updateVolumeFromArray(self.label, array)
        try:
            self.folders.add(self.remaining[0], lambda path: slicer.util.saveNode(self.label, str(path)))
        except OSError as error:
            slicer.util.errorDisplay(str(error))
            return
        self.next()

    def next(self) -> None:
        """Go on to the next case."""
        self.remaining = self.remaining[1:]
        self.show()


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("Usage: Slicer --python-script review.py IMAGES SEGMENTATIONS DATASET")
    review = Review(Folders(*map(Path, sys.argv[1:])))
