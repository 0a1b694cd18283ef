"""DICOM files with several frames, such as enhanced CT, MR and PET.

GDCM takes the frames as stored, scales all of them like the first one, and calls the voxels 1 mm wide where positions
are rounded. So the frames are arranged here by what the file says about each.
"""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from autocrossdim.data.dicom import PLACES, SPACING_TOLERANCE, elements, stacking_order
from autocrossdim.system.errors import UserError

Floats = npt.NDArray[np.float64]

_DEFAULTS: dict[str, list[float]] = {"directions": [1, 0, 0, 0, 1, 0], "slopes": [1], "intercepts": [0]}


@dataclass(frozen=True)
class Frames:
    """What a file with n frames says about each of them, in the order in which they are stored.

    Attributes:
        path: The file.
        positions: Position of the first voxel in mm (x, y, z), shape (n, 3).
        directions: Directions along a line and from line to line, shape (n, 6).
        spacing: Voxel spacing in mm (y, x), shape (n, 2).
        slopes: Factor of the stored values, shape (n, 1).
        intercepts: Value of a stored 0, shape (n, 1).
    """

    path: Path
    positions: Floats
    directions: Floats
    spacing: Floats
    slopes: Floats
    intercepts: Floats

    def arrange(self, image: sitk.Image) -> sitk.Image:
        """Return the frames, as GDCM reads them, in the order of their positions, each scaled by its own slope.

        Raises:
            UserError: They do not form one volume.
        """
        if image.GetDimension() != 3 or image.GetSize()[2] != len(self.positions):
            raise UserError(
                f"{self.path}: gives the positions of {len(self.positions)} frames, but has another number of them. "
                "Convert it to single slices."
            )
        rows, columns = self.directions[:, :3], self.directions[:, 3:]
        matrices = np.stack([rows, columns, np.cross(rows, columns)], axis=2)
        order = stacking_order(self.path, self.positions, matrices.reshape(-1, 9))
        if np.ptp(self.spacing, axis=0).max() > SPACING_TOLERANCE * self.spacing.min():
            raise UserError(f"{self.path}: its frames have different pixel spacings. Separate them.")
        first, last = self.positions[order[[0, -1]]]
        gap = (last - first) @ matrices[0, :, 2] / (len(order) - 1)
        scaled = self._scaled(sitk.GetArrayFromImage(image))
        arranged = sitk.GetImageFromArray(scaled[order], isVector=image.GetNumberOfComponentsPerPixel() > 1)
        arranged.SetSpacing([*self.spacing[0, ::-1], gap])
        arranged.SetOrigin(first)
        arranged.SetDirection(matrices[0].ravel())
        return arranged

    def _scaled(self, array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """Return values (n, ...) that GDCM scaled like the first frame, scaled like their own."""
        if not (np.ptp(self.slopes) or np.ptp(self.intercepts)):
            return array
        stored = np.round((array - self.intercepts[0]) / self.slopes[0])
        each = (-1, *[1] * (array.ndim - 1))
        scaled: npt.NDArray[np.generic] = stored * self.slopes.reshape(each) + self.intercepts.reshape(each)
        return scaled


def read_frames(path: Path) -> Frames | None:
    """Return what a DICOM file says about each of its frames; None if it has one, or does not say where they are.

    Raises:
        UserError: The file is damaged, or describes some of its frames only.
    """
    found = _values(path)
    number = len(found["positions"])
    if number < 2 or not found["spacing"]:
        return None
    try:
        values = {
            name: np.broadcast_to(np.array(found[name] or [_DEFAULTS[name]], float), (number, width))
            for name, width in (("positions", 3), ("directions", 6), ("spacing", 2), ("slopes", 1), ("intercepts", 1))
        }
    except ValueError as error:
        raise UserError(f"{path}: describes only some of its {number} frames. Convert it to single slices.") from error
    return Frames(path, **values)


def _values(path: Path) -> dict[str, list[list[float]]]:
    """Return the numbers of each item of the sequences in `PLACES`."""
    names = {place: name for name, place in PLACES.items()}
    found: dict[str, list[list[float]]] = defaultdict(list)
    with path.open("rb") as file:
        for sequence, tag, position, length in elements(path):
            name = names.get((sequence, tag))
            if name is None or not length:
                continue
            file.seek(position)
            text = file.read(length)
            try:
                found[name].append([float(number) for number in text.rstrip(b"\0 ").split(b"\\")])
            except ValueError as error:
                # Its content is not shown: in a damaged file, it may be anything, such as a name.
                where = f"({tag[0]:04x},{tag[1]:04x})"
                raise UserError(f"{path}: damaged: {where} does not contain numbers. Copy the file again.") from error
    return found
