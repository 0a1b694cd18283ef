"""`predict` on a directory: every case is segmented once, and what is wrong with one is said by name."""

import csv
import gzip
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from torch import Tensor, nn

import autocrossdim
from autocrossdim.data.images import read_image
from autocrossdim.data.writing.registry import FORMATS
from autocrossdim.inference.model import Model
from autocrossdim.inference.predictor import Predictor
from autocrossdim.records.sources import content_hash, file_versions
from autocrossdim.system.errors import UserError


class Bright(nn.Module):
    """Predicts label 1 where the image is above 0."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([-x, x], dim=1) * self.scale


@pytest.fixture
def folder(
    tmp_path: Path,
    write_image: Callable[..., Path],
    make_plan: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """A directory with five cases in `images`; any model name loads a model of one fold."""
    for number in range(5):
        image = np.random.default_rng(number).normal(size=(6, 7, 8)).astype(np.float32)
        write_image(tmp_path / "images" / f"case{number}_0000.nii.gz", image)
    plan = make_plan(patch_size=(4, 4, 4), orientation="SPL")
    model = Model(plan, plan.configuration(), [Bright().eval()])
    monkeypatch.setattr(Predictor, "load", lambda *_, **__: Predictor([model], mirroring=False))
    return tmp_path


def names(paths: Path) -> list[str]:
    return sorted(path.name.split(".")[0] for path in paths.glob("*.nii.gz"))


def test_a_damaged_image_is_named_and_the_next_run_resumes(folder: Path) -> None:
    bad = folder / "images" / "case2_0000.nii.gz"
    good = bad.read_bytes()
    bad.write_bytes(gzip.compress(gzip.decompress(good)[:-100]))
    with pytest.raises(UserError, match=r"case2_0000\.nii\.gz"):
        autocrossdim.predict("any", folder / "images", folder / "out")
    assert names(folder / "out") == ["case0", "case1"]
    bad.write_bytes(good)
    kept = (folder / "out" / "case0.nii.gz").stat().st_mtime_ns
    autocrossdim.predict("any", folder / "images", folder / "out")
    assert names(folder / "out") == [f"case{number}" for number in range(5)]
    assert (folder / "out" / "case0.nii.gz").stat().st_mtime_ns == kept


def test_an_interrupted_overwrite_leaves_no_earlier_segmentation_beside_new_numbers(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = autocrossdim.predict("any", folder / "images", folder / "out")

    def killed(*_: Any) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setitem(FORMATS, "image", replace(FORMATS["image"], write=killed))
        with pytest.raises(RuntimeError, match="killed"):
            autocrossdim.predict("any", folder / "images", folder / "out", overwrite=True)
    assert [path.exists() for path in paths] == [False, True, True, True, True]
    autocrossdim.predict("any", folder / "images", folder / "out")
    assert all(path.exists() for path in paths)


def test_cases_that_the_model_was_trained_on_are_named_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch, make_plan: Callable[..., Any], capfd: pytest.CaptureFixture[str]
) -> None:
    files = [folder / "images" / f"case{number}_0000.nii.gz" for number in range(2)]
    trained_on = {content_hash(file_versions([file])) for file in files}
    plan = make_plan(patch_size=(4, 4, 4))
    model = Model(plan, plan.configuration(), [Bright().eval()], trained_on=trained_on)
    monkeypatch.setattr(Predictor, "load", lambda *_, **__: Predictor([model], mirroring=False))
    for warnings in (1, 0):  # none where nothing is left to do
        autocrossdim.predict("any", folder / "images", folder / "out")
        assert capfd.readouterr().err.count("warning: The model was trained on case0, case1, so their") == warnings


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"weights": "b" * 64}, r"weights of dx/fold_0"),
        ({"fold": 1}, r"networks: dx/fold_0, not dx/fold_1"),
        ({"mirroring": True}, r"mirroring"),
    ],
)
def test_results_of_another_model_are_neither_kept_nor_replaced_unasked(
    folder: Path, monkeypatch: pytest.MonkeyPatch, make_plan: Callable[..., Any], change: dict[str, Any], named: str
) -> None:
    plan = make_plan(patch_size=(4, 4, 4))

    def load(fold: int = 0, weights: str = "a" * 64, mirroring: bool = False) -> None:
        model = Model(plan, plan.configuration(), [Bright().eval()], folds=(fold,), digests=(weights,))
        monkeypatch.setattr(Predictor, "load", lambda *_, **__: Predictor([model], mirroring=mirroring))

    def predict(**options: Any) -> list[int]:
        paths = autocrossdim.predict("any", folder / "images", folder / "out", **options)
        return [path.stat().st_mtime_ns for path in paths]

    load()
    written = predict()
    assert predict() == written, "the same model resumes"
    load(**change)
    with pytest.raises(UserError, match=rf"case0\.nii\.gz and 4 other .*\(different: {named}\)\. Add --overwrite"):
        predict()
    with pytest.raises(UserError, match=named):
        predict(uncertainty=True)
    assert all(now > before for now, before in zip(predict(overwrite=True), written, strict=True))
    predict()


def test_segmentations_of_unknown_origin_are_kept_with_a_warning(
    folder: Path, write_image: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    by_hand = write_image(folder / "out" / "case3.nii.gz", np.ones((6, 7, 8), np.uint8))
    before = by_hand.read_bytes()
    autocrossdim.predict("any", folder / "images", folder / "out")
    assert by_hand.read_bytes() == before
    assert "not known which model made the existing segmentations of case3. Add --overwrite" in capsys.readouterr().err


def test_parts_share_a_directory_among_machines(folder: Path) -> None:
    done = [autocrossdim.predict("any", folder / "images", folder / f"out{i}", part=f"{i}/2") for i in range(2)]
    assert [[path.name for path in paths] for paths in done] == [
        ["case0.nii.gz", "case2.nii.gz", "case4.nii.gz"],
        ["case1.nii.gz", "case3.nii.gz"],
    ]
    again = autocrossdim.predict("any", folder / "images", folder / "out1", part="0/2")
    assert len(again) == 3
    with (folder / "out1" / "volumes.csv").open(encoding="utf-8") as file:
        assert [row["case"] for row in csv.DictReader(file)] == [f"case{number}" for number in range(5)]
    for wrong in ("2/2", "1", "-1/2", "0/0", "a/b", "٠/٢"):
        with pytest.raises(UserError, match=f"--part {wrong}: use I/N"):
            autocrossdim.predict("any", folder / "images", folder / "out", part=wrong)


def test_results_of_earlier_versions_are_measured(folder: Path) -> None:
    autocrossdim.predict("any", folder / "images", folder / "out")
    before = (folder / "out" / "volumes.csv").read_text(encoding="utf-8")
    (folder / "out" / "volumes.csv").unlink()
    (folder / "out" / "volumes" / "case3.json").unlink()
    autocrossdim.predict("any", folder / "images", folder / "out")
    assert (folder / "out" / "volumes.csv").read_text(encoding="utf-8") == before


def test_a_spacing_far_from_training_is_a_warning_with_the_factor(
    folder: Path, write_image: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    write_image(folder / "images" / "case4_0000.nii.gz", np.ones((6, 7, 8), np.float32), spacing=(2.0, 1.0, 0.4))
    autocrossdim.predict("any", folder / "images", folder / "out")
    warnings = [line for line in capsys.readouterr().err.splitlines() if " warning: " in line]
    assert len(warnings) == 1, "a factor of 2.0 is not far"
    assert "case4_0000.nii.gz: spacing 0.4 mm along x, but " in warnings[0]
    assert "was trained at 1 mm, 2.5 times coarser" in warnings[0]


def test_an_image_that_does_not_state_its_orientation_is_a_warning(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = folder / "images" / "case1_0000.nii.gz"
    content = bytearray(gzip.decompress(file.read_bytes()))
    content[252:256] = bytes(4)  # qform_code and sform_code
    file.write_bytes(gzip.compress(content))
    autocrossdim.predict("any", folder / "images", folder / "out")
    (warning,) = [line for line in capsys.readouterr().err.splitlines() if " warning: " in line]
    assert f"{file}: the file does not state its orientation, so it is taken to be that of the training data" in warning
    assert "(SPL; z, y, x)" in warning


def test_an_mha_file_and_a_dicom_series_without_directions_are_warnings(
    folder: Path, write_series: Callable[..., list[Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    series, file = tmp_path / "series", tmp_path / "scan.mha"
    for content in write_series(series, np.ones((6, 7, 8)), (1, 1, 1)):
        del content.ImageOrientationPatient
        content.save_as(content.filename)
    head = "ObjectType = Image\nNDims = 3\nAnatomicalOrientation = ???\nElementSpacing = 1 1 1\nDimSize = 8 7 6\n"
    file.write_bytes(f"{head}ElementType = MET_UCHAR\nElementDataFile = LOCAL\n".encode() + bytes(6 * 7 * 8))
    for source in (series, file):
        autocrossdim.predict("any", source, tmp_path / source.name[:4])
        (warning,) = [line for line in capsys.readouterr().err.splitlines() if " warning: " in line]
        assert f"{source}: the file does not state its orientation, so it is taken to be" in warning


def test_a_4d_image_is_named_and_nothing_is_written(folder: Path) -> None:
    image = sitk.Image(4, 5, 6, sitk.sitkFloat32)
    sitk.WriteImage(sitk.JoinSeries([image, image]), str(folder / "images" / "case0_0000.nii.gz"))
    with pytest.raises(UserError, match=r"case0_0000\.nii\.gz: a 4D image .* Split it"):
        autocrossdim.predict("any", folder / "images", folder / "out")
    assert names(folder / "out") == []


@pytest.mark.parametrize("name", ["case0_0001.nii.gz", "other_0001.nii.gz"])
def test_a_surplus_channel_is_named(folder: Path, write_image: Callable[..., Path], name: str) -> None:
    write_image(folder / "images" / name, np.zeros((3, 4, 5), np.float32))
    with pytest.raises(UserError, match=rf"{name}: the model takes 1 channel, 0000 to 0000"):
        autocrossdim.predict("any", folder / "images", folder / "out")


def test_an_image_is_not_replaced_by_its_segmentation(folder: Path) -> None:
    (folder / "images" / "case0_0000.nii.gz").rename(folder / "one.nii.gz")
    with pytest.raises(UserError, match=r"one\.nii\.gz would replace the image itself"):
        autocrossdim.predict("any", folder / "one.nii.gz", folder)


def no_model(*_: Any, **__: Any) -> Any:
    raise AssertionError("paths must be checked before a model is loaded")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere", "nowhere: no such file or directory"),
        ("images/case0_0000.nii.gz/inside", "inside: no such file or directory"),
        ("with\0null", r"with\?null: no such file or directory"),
        ("half\ud800pair", r"half\?pair: no such file or directory"),
        ("x" * 300, "too long"),
    ],
)
def test_an_impossible_input_is_refused_before_a_model_is_loaded(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    monkeypatch.setattr(Predictor, "load", no_model)
    with pytest.raises(UserError, match=message) as caught:
        autocrossdim.predict("any", folder / name, folder / "out")
    assert str(caught.value).isprintable()
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("images", "this is the directory of the images"),
        ("images/../images", "this is the directory of the images"),
        ("images/case0_0000.nii.gz", "not a directory"),
        ("images/case0_0000.nii.gz/inside", "not a directory"),
        ("/dev/null", "not a directory"),
        ("case0.nii.gz", "this is a file name"),
        ("with\0null", "invalid characters"),
        ("half\ud800pair", "invalid characters"),
        ("x" * 300, "too long"),
    ],
)
def test_an_impossible_output_is_refused_before_a_model_is_loaded(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    monkeypatch.setattr(Predictor, "load", no_model)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    with pytest.raises(UserError, match=message) as caught:
        autocrossdim.predict("any", folder / "images", folder / name)
    assert str(caught.value).isprintable()
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_links_that_lead_in_a_circle_are_refused(folder: Path) -> None:
    (folder / "circle").symlink_to(folder / "circle")
    with pytest.raises(UserError, match="circle"):
        autocrossdim.predict("any", folder / "circle", folder / "out")
    with pytest.raises(UserError, match="circle"):
        autocrossdim.predict("any", folder / "images", folder / "circle")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has these directories")
@pytest.mark.parametrize("name", ["/proc", "/sys", "/dev"])
def test_directories_of_devices_and_endless_files_are_refused_quickly(folder: Path, name: str) -> None:
    started = time.monotonic()
    with pytest.raises(UserError, match=name):
        autocrossdim.predict("any", name, folder / "out")
    assert time.monotonic() - started < 30  # reading /proc takes minutes or never ends


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes on Linux only")
def test_a_file_name_that_is_not_utf8_is_named(folder: Path) -> None:
    source = folder / "images" / "case0_0000.nii.gz"
    source.rename(Path(os.fsdecode(os.fsencode(folder / "images") + b"/caf\xe9_0000.nii.gz")))
    with pytest.raises(UserError, match=r"caf\?_0000\.nii\.gz: the name is not valid UTF-8"):
        autocrossdim.predict("any", folder / "images", folder / "out")


@pytest.mark.usefixtures("folder")
def test_a_directory_without_access_is_named(unprivileged: Path) -> None:
    locked = unprivileged / "images"
    locked.mkdir(mode=0)
    with pytest.raises(UserError, match="images: .*permission denied"):
        autocrossdim.predict("any", locked, unprivileged / "out")
    with pytest.raises(UserError, match="images/out: .*permission denied"):
        autocrossdim.predict("any", unprivileged, locked / "out")


def test_uncertainty_of_3d_tiff_is_complete_and_resumes(
    make_plan: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TIFF stores the spacing of an image in a JSON file of the same name, beside the numbers of the case."""
    spacing = [3.0, 1.0, 1.5]
    images = tmp_path / "images"
    images.mkdir()
    for name in "ab":
        image = np.random.default_rng(ord(name)).normal(size=(6, 7, 8)).astype(np.float32)
        sitk.WriteImage(sitk.GetImageFromArray(image), str(images / f"{name}_0000.tif"))
        (images / f"{name}.json").write_text(json.dumps({"spacing": spacing}))
    plan = make_plan(3, spacing, patch_size=(4, 4, 4), file_ending=".tif")
    model = Model(plan, plan.configuration(), [Bright().eval(), Bright().eval()])
    monkeypatch.setattr(Predictor, "load", lambda *_, **__: Predictor([model], mirroring=False))

    paths = autocrossdim.predict("any", images, tmp_path / "out", uncertainty=True)
    for kind in ("entropy", "disagreement"):
        found = read_image([tmp_path / "out" / "uncertainty" / f"a_{kind}.tif"])
        assert found.geometry.spacing == tuple(spacing)
        assert found.array.shape == (1, 6, 7, 8)
    with (tmp_path / "out" / "uncertainty.csv").open() as file:
        assert sorted(row["case"] for row in csv.DictReader(file)) == ["a", "b"]

    before = [path.stat().st_mtime_ns for path in paths]
    assert autocrossdim.predict("any", images, tmp_path / "out", uncertainty=True) == paths
    assert [path.stat().st_mtime_ns for path in paths] == before
