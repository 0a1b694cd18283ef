from collections.abc import Callable

import pytest

from autocrossdim.records.fingerprint import CaseFingerprint, Fingerprint, LabelMeasurement
from autocrossdim.records.labels import Labels
from autocrossdim.report import distributions

LABELS = Labels.from_dataset_json({"background": 0, "liver": 1, "vessel": 2})


def fingerprint(*intensity_stds: tuple[float, ...]) -> Fingerprint:
    shape = (4, 8, 8)
    cases = [
        CaseFingerprint(
            name=f"c{number}",
            shape=shape,
            cropped_shape=shape,
            spacing=(1, 1, 1),
            label_voxels={1: 30},
            labels={1: LabelMeasurement(centroid=(1, 1, 1), mean=(0.5,), std=(0.1,))},
            intensity_std=std,
        )
        for number, std in enumerate(intensity_stds)
    ]
    return Fingerprint(dims=3, cases=tuple(cases), intensities=())


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, list[float]]]:
    """Draw a fingerprint; return the values of the last histogram of each name."""

    def draw(measured: Fingerprint, *, ct: bool) -> dict[str, list[float]]:
        found: dict[str, list[float]] = {}
        monkeypatch.setattr(
            distributions, "_histogram", lambda plot, values, name: found.setdefault(name, []).extend(values)
        )
        distributions.fingerprint_chart(measured, LABELS, "mm", ct=ct)
        return found

    return draw


def test_intensities_of_ct_are_in_hu(drawn: Callable[..., dict[str, list[float]]]) -> None:
    measured = fingerprint((80.0,), (120.0,))
    assert drawn(measured, ct=True)["mean intensity (HU)"] == [40, 60]
    assert drawn(measured, ct=False)["mean intensity (SD)"] == [0.5, 0.5]


def test_cases_that_an_earlier_version_measured_have_no_hu(drawn: Callable[..., dict[str, list[float]]]) -> None:
    assert drawn(fingerprint((80.0,), ()), ct=True)["mean intensity (SD)"] == [0.5, 0.5]
