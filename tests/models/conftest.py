import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from autocrossdim.models.archive import write_archive
from autocrossdim.records.fingerprint import CaseFingerprint, Fingerprint
from autocrossdim.records.workspace import Workspace

CASES = ("mueller_anna", "schmidt_jan", "weber_eva", "koch_ida")
HOME = "/home/doctor_x/scans"
FOLDS = 2

Entry = tuple[str | zipfile.ZipInfo, bytes]


def seal(content: bytes) -> bytes:
    """The bytes with a checksum that is right again."""
    return content[:-64] + hashlib.sha256(content[:-64]).hexdigest().encode()


@pytest.fixture(scope="session")
def resealed() -> Callable[[bytes], bytes]:
    """As whoever tampers on purpose would do it: bytes with a checksum that is right again."""
    return seal


@pytest.fixture(scope="session")
def forged() -> Callable[..., Path]:
    """Write a zip of any entries with a right checksum: `forged(path, entries, manifest)`."""

    def write(path: Path, entries: Iterable[Entry], manifest: Any = None) -> Path:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for entry, content in entries:
                info = zipfile.ZipInfo(entry) if isinstance(entry, str) else entry
                if isinstance(entry, str):
                    info.create_system, info.external_attr = 3, 0o100644 << 16
                archive.writestr(info, content)
            if manifest is not None:
                info = zipfile.ZipInfo("manifest.json")
                info.create_system, info.external_attr = 3, 0o100644 << 16
                archive.writestr(info, manifest if isinstance(manifest, bytes) else json.dumps(manifest))
            archive.comment = b"0" * 64
        path.write_bytes(seal(buffer.getvalue()))
        return path

    return write


@pytest.fixture(scope="session")
def repacked() -> Callable[..., Path]:
    """Write a model file's members anew, some changed or (None) left out, with a manifest that is right again."""

    def write(source: Path, target: Path, **changes: bytes | None) -> Path:
        with zipfile.ZipFile(source) as archive:
            members = {name: archive.read(name) for name in archive.namelist() if name != "manifest.json"}
        members |= {name: content for name, content in changes.items() if content is not None}
        write_archive(
            target, ((name, content) for name, content in members.items() if changes.get(name, b"") is not None), "0"
        )
        return target

    return write


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, make_plan: Callable[..., Any]) -> Path:
    """The results of a dataset whose folds were trained, with names of patients and folders wherever there are any."""
    import torch

    from autocrossdim.evaluation.summary import summarise
    from autocrossdim.networks.build import build_network
    from autocrossdim.records.checkpoint import Checkpoint
    from autocrossdim.records.run_state import RunState
    from autocrossdim.records.summary import CaseResult

    space = Workspace(tmp_path_factory.mktemp("export") / "Dataset001_Tiny")
    plan = make_plan(patch_size=(8, 8, 8))
    plan.write(space.plan)
    shapes = [(20, 16, 18), (22, 16, 18), (24, 16, 20), (26, 16, 20)]
    Fingerprint(
        dims=3,
        cases=tuple(
            CaseFingerprint(name=name, shape=shape, cropped_shape=shape, spacing=(1.5, 1, 1), label_voxels={0: 9, 1: 9})
            for name, shape in zip(CASES, shapes, strict=True)
        ),
        intensities=(),
    ).write(space.fingerprint)
    torch.manual_seed(0)
    report = {"source": f"{HOME}/b0.pth", "layers": [], "parameters": {"matched": 10, "adapted": 2, "new": 3}}
    encoder = {"source": "timm/test_efficientnet.r160_in1k", "tag": "r160_in1k", "licence": "apache-2.0"}
    origins = [
        {**encoder, "sha256": "0" * 64, "report": report},
        {"model": f"{HOME}/models/omnia/fold_1/checkpoint_latest", "started_from": encoder, "report": report},
    ]
    for fold, provenance in enumerate(origins):
        Checkpoint(
            plan=plan,
            configuration="dx",
            fold=fold,
            split={"train": list(CASES[:2]), "val": list(CASES[2:])},
            network=build_network(plan.network_plan(plan.configuration()), None).state_dict(),
            settings={"epochs": 3},
            provenance=provenance,
            run=RunState(epoch=3, step=12, seconds=1.0, best=0.5, complete=True),
        ).write(space.fold("dx", fold).latest)
    metrics = {"TP": 1.0, "FP": 1.0, "FN": 1.0, "TN": 1.0, "n_pred": 2.0, "n_ref": 2.0, "HD95": 2.0}
    cases = [
        CaseResult(
            reference_file=f"{HOME}/{name}.nii.gz",
            prediction_file=f"{HOME}/out/{name}.nii.gz",
            metrics={"1": {**metrics, "Dice": dice}},
        )
        for name, dice in zip(CASES, (0.5, 0.6, 0.7, 0.8), strict=True)
    ]
    summarise(cases, plan.labels).write(space.summary("dx"))
    return space.root


@pytest.fixture(scope="session")
def exported(trained: Path) -> Path:
    """All folds of `trained` in one file."""
    from autocrossdim import export

    return export(trained, trained.parent / "tiny.acd")
