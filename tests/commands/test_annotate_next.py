"""`annotate_next` through the command line: the list, its files, the report, and what is computed again."""

import csv
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import autocrossdim
from autocrossdim.data.dataset import load_dataset
from autocrossdim.data.images import read_label, write_label
from autocrossdim.inference.predictor import Predictor
from autocrossdim.preprocessing.fingerprint import extract
from autocrossdim.records.checkpoint import Checkpoint
from autocrossdim.records.workspace import Workspace
from autocrossdim.system.files import read_json, write_json

ANNOTATED, UNLABELLED = ("a", "b", "c"), ("u", "v", "w")


@pytest.fixture
def planned(
    make_dataset: Callable[..., Path],
    make_plan: Callable[..., Any],
    write_model: Callable[..., Path],
    tmp_path: Path,
) -> tuple[Path, Workspace]:
    """A dataset with every third slice annotated, three unlabelled scans of two patients, and a network."""
    path = make_dataset(
        cases=ANNOTATED,
        test_cases=UNLABELLED,
        shape=(9, 20, 18),
        unannotated_slices="empty",
        groups={"u": "P", "v": "P"},
    )
    (path / "imagesTs").rename(path / "imagesUn")
    for case in ANNOTATED:
        file = path / "labelsTr" / f"{case}.nii.gz"
        label, geometry = read_label(file)
        label[::3, 0, 0] = 1
        label[np.arange(9) % 3 > 0] = 0
        write_label(label, geometry, file)
    raw = load_dataset(path)
    space = Workspace.of(raw.name, tmp_path / "work")
    extract(raw, 1)[0].write(space.fingerprint)
    write_json(space.dataset_json, raw.description)
    options: dict[str, Any] = {"dims": 2, "spacing": (2.0, 1.0, 1.0), "labels": raw.labels, "patch_size": (16, 16)}
    options["channel_names"] = raw.channel_names
    write_model(space.model("omnia"), **options)
    make_plan(**options).write(space.plan)
    return path, space


def test_the_list_its_files_and_the_report(
    planned: tuple[Path, Workspace], succeed: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, space = planned
    words = ["annotate_next", path, "--work", space.root.parent, "--device", "cpu", "--no-mirroring"]
    said = succeed(*words, "-n", "2")
    assert "2 of 3 unlabelled scans to annotate next (stratified, seed 0)" in said
    assert "Remove them from the slices that you do not check" in " ".join(said.split())

    rows = list(csv.DictReader((space.root / "annotate_next.csv").open(encoding="utf-8")))
    assert "w" in {row["case"] for row in rows}  # u and v are of one patient
    assert all(row["slice_axis"] == "z" and len(row["slices"].split()) == 3 for row in rows)
    for row in rows:
        label, geometry = read_label(Path(row["draft"]))
        assert label.shape == geometry.shape == (9, 20, 18)

    page = succeed("report", path, "--work", space.root.parent)
    page = space.report.read_text(encoding="utf-8")
    assert "Scans to annotate next" in page
    assert page.count("slice with the outline of the draft") == 2

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("a scan is segmented again")

    monkeypatch.setattr(Predictor, "segment", fail)
    (row,) = json.loads(succeed("-q", *words, "-n", "1", "--method", "random", "--json"))["suggestions"]
    assert row["why"].startswith("drawn at random")


def test_complete_annotation_needs_no_slices(planned: tuple[Path, Workspace]) -> None:
    path, space = planned
    for file in (path / "dataset.json", space.dataset_json):
        write_json(file, {key: value for key, value in read_json(file).items() if key != "unannotated_slices"})
    found = autocrossdim.annotate_next(path, work=space.root.parent, number=1, device="cpu", mirroring=False)
    assert [(each.slices, each.slice_axis) for each in found.suggestions] == [((), None)]


def test_scans_are_measured_again_if_the_image_or_the_model_changed(
    planned: tuple[Path, Workspace],
    succeed: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path, space = planned
    words = ["annotate_next", path, "--work", space.root.parent, "--device", "cpu", "--no-mirroring"]
    succeed(*words)
    segmented = []
    segment = Predictor.segment

    def count(*arguments: Any, **options: Any) -> Any:
        segmented.append(arguments)
        return segment(*arguments, **options)

    monkeypatch.setattr(Predictor, "segment", count)
    image = path / "imagesUn" / "u_0000.nii.gz"
    image.write_bytes((path / "imagesUn" / "v_0000.nii.gz").read_bytes())
    succeed(*words)
    assert len(segmented) == 1
    file = space.fold("omnia", 0).latest
    dataclasses.replace(Checkpoint.read(file), provenance={"weights": "trained again"}).write(file)
    succeed(*words)
    assert len(segmented) == 1 + len(UNLABELLED)


def test_without_scans_or_a_trained_fold_the_message_says_what_to_do(
    planned: tuple[Path, Workspace], command: Callable[..., Any]
) -> None:
    path, space = planned
    words = ["annotate_next", path, "--work", space.root.parent]
    result = command(*words, "-i", path / "imagesTr")
    assert result.returncode == 2
    assert f"{path / 'imagesTr'}: no unlabelled scans. Add images there" in result.stderr
    space.fold("omnia", 0).latest.unlink()
    result = command(*words)
    assert result.returncode == 2
    assert "autocrossdim train" in result.stderr
