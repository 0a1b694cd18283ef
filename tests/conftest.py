"""What tests share: tiny datasets with real files, and the folder of real data where there is one."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

# A shell that starts the tests in the background has SIGINT ignored, which every process they start would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Tests run on all cores, one per core. Read when torch loads its OpenMP, here and in the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The tests are those of a machine without an NVIDIA or AMD GPU. `autocrossdim doctor --device cuda` tests a GPU.
os.environ |= {"CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": ""}

OBLIQUE = (0.8, 0.6, 0.0, -0.6, 0.8, 0.0, 0.0, 0.0, 1.0)  # row by row; a turn about z

NOBODY = 65534  # an unprivileged user

DatasetBuilder = Callable[..., Path]


def write_itk(path: Path, array: np.ndarray, spacing: Sequence[float] = (1, 1, 1), **place: Any) -> Path:
    """Write `array` (Z, Y, X) or (Y, X), `spacing` in mm (z, y, x), `origin` and `direction` as ITK's."""
    image = sitk.GetImageFromArray(array)
    if path.suffix not in (".png", ".bmp", ".tif", ".tiff"):
        image.SetSpacing([float(s) for s in spacing][::-1][: array.ndim])
        if "origin" in place:
            image.SetOrigin([float(x) for x in place["origin"]])
        if "direction" in place:
            image.SetDirection([float(x) for x in place["direction"]])
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))
    return path


def write_dataset(
    folder: Path,
    *,
    cases: Sequence[str] = ("a", "b", "c", "d", "e"),
    test_cases: Sequence[str] = (),
    channels: int = 1,
    labels: Mapping[str, Any] | None = None,
    shape: Sequence[int] = (8, 12, 10),
    spacing: Sequence[float] = (2.0, 1.0, 1.0),
    ending: str = ".nii.gz",
    direction: Sequence[float] = OBLIQUE,
    **more: Any,
) -> Path:
    """Write a dataset: noise with one bright block for every label value, at another place in each case.

    `shape` has two entries for pictures, and `more` are further keys of dataset.json.
    """
    labels = dict(labels or {"background": 0, "block": 1})
    declared = [v for value in labels.values() for v in (value if isinstance(value, list) else [value])]
    values = sorted({v for v in declared if v != 0})
    for number, name in enumerate([*cases, *test_cases]):
        rng = np.random.default_rng(number)
        image = rng.normal(50, 5, (channels, *shape))
        label = np.zeros(shape, np.uint8)
        for k, value in enumerate(values):
            start = (k * shape[-1]) // len(values)
            block = (
                ...,
                slice(2 + number % 3, 7 + number % 3),
                slice(start, start + shape[-1] // len(values)),
            )
            label[block] = value
            image[:, label == value] += 40 + 20 * k
        dtype = np.uint8 if ending == ".png" else np.float32
        place = {"spacing": spacing, "origin": (10 + number, -20, 5)[: len(shape)]}
        if len(shape) == 3:
            place["direction"] = direction
        part = "Tr" if name in cases else "Ts"
        for channel, array in enumerate(image):
            write_itk(folder / f"images{part}" / f"{name}_{channel:04d}{ending}", array.astype(dtype), **place)
        write_itk(folder / f"labels{part}" / f"{name}{ending}", label, **place)
    description = {
        "channel_names": {str(c): f"channel {c}" for c in range(channels)},
        "labels": labels,
        "numTraining": len(cases),
        "file_ending": ending,
        **more,
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder


@pytest.fixture(scope="session", autouse=True)
def _one_core() -> Iterator[None]:
    """Let the program see one core: worker processes take longer to start than the little work of most tests.

    Tests of workers give their number. Programs that a test starts see all cores.
    """
    with pytest.MonkeyPatch.context() as patch:
        if hasattr(os, "sched_getaffinity"):
            core = min(os.sched_getaffinity(0))
            patch.setattr(os, "sched_getaffinity", lambda _: {core})
        yield


@pytest.fixture
def make_dataset(tmp_path: Path) -> DatasetBuilder:
    """Build a tiny dataset in `tmp_path`: see `write_dataset` for what can be asked of it."""

    def build(name: str = "Dataset001_Tiny", **options: Any) -> Path:
        return write_dataset(tmp_path / name, **options)

    return build


@pytest.fixture(scope="session")
def write_nodules() -> Callable[[Path], Path]:
    """Write `Dataset901_Nodules` into a folder: five training and two test volumes with an organ and nodules."""

    def write(folder: Path) -> Path:
        from autocrossdim.data.phantoms import ISOTROPIC_SPACING, nodules, write_dataset

        raw = folder / "Dataset901_Nodules"
        labels = {"background": 0, "organ": 1, "nodule": 2}
        write_dataset(raw, lambda random: nodules(random, (20, 28, 24)), labels, ISOTROPIC_SPACING, training=5)
        return raw

    return write


@pytest.fixture
def write_image() -> Callable[..., Path]:
    """Write one file with ITK: `write_image(path, array, spacing, origin=..., direction=...)`."""
    return write_itk


@pytest.fixture
def edit_json() -> Callable[..., None]:
    """Change keys of a dataset's dataset.json; a key set to None is removed."""

    def edit(dataset: Path, /, **changes: Any) -> None:
        file = dataset / "dataset.json"
        content = {**json.loads(file.read_text(encoding="utf-8")), **changes}
        file.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))

    return edit


@pytest.fixture
def command(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command line in this process, which has loaded torch already: `command("plan", dataset, "--json")`."""

    def run(*words: object) -> subprocess.CompletedProcess[str]:
        from autocrossdim.cli import main
        from autocrossdim.system.console import logger

        level = logger.level  # -q and -v change it for the whole process
        monkeypatch.setattr(sys, "argv", ["autocrossdim", *map(str, words)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        logger.setLevel(level)
        printed = capfd.readouterr()
        return subprocess.CompletedProcess(words, int(end.value.code or 0), printed.out, printed.err)

    return run


@pytest.fixture
def succeed(command: Callable[..., subprocess.CompletedProcess[str]]) -> Callable[..., str]:
    """Run the command line in this process, expect success, and return what it printed."""

    def run(*words: object) -> str:
        result = command(*words)
        assert result.returncode == 0, result.stderr
        return result.stdout + result.stderr

    return run


@pytest.fixture(scope="session")
def make_plan() -> Callable[..., Any]:
    """Build a plan of one small configuration: `make_plan(dims=2, spacing=(3, 1, 1), labels=..., ...)`.

    Keywords are fields of the plan or of its configuration; intensities are left as they are, so that an image can
    carry its own label. The spacing is (z, y, x) in the plan's order, whatever `dims` is.
    """

    def build(dims: int = 3, spacing: Sequence[float] = (1.0, 1.0, 1.0), **fields: Any) -> Any:
        from autocrossdim.records.labels import Labels
        from autocrossdim.records.normalization import Normalization
        from autocrossdim.records.plan import Configuration, Cost, Decision, Memory, Plan

        name = "omnia" if dims == 2 else "dx"
        network = {
            "name": name,
            "dims": dims,
            "spacing": tuple(spacing)[-dims:],
            "median_shape": (16, 16, 16),
            "patch_size": (16, 16, 16)[-dims:],
            "batch_size": 2,
            "encoder": "test_efficientnet",
            "strides": ((2,) * dims,) * 3,
            "kernel_sizes": ((3,) * dims,) * 4,
            "memory": Memory(budget_bytes=2**30, estimated_bytes=2**20, inference_bytes=2**20),
            "cost": Cost(multiply_adds_per_case=10**6),
        }
        network |= {key: fields.pop(key) for key in list(fields) if key in Configuration.model_fields}
        channels = fields.pop("channel_names", ("phantom",))
        decision = Decision(anisotropy=1, threshold=3, configuration=name, alternatives=(), reasons=("A test.",))
        whole = {
            "dataset": "Dataset001_Tiny",
            "dims": 3,
            "channel_names": channels,
            "labels": Labels.from_dataset_json({"background": 0, "block": 1}),
            "file_ending": ".nii.gz",
            "transpose": (0, 1, 2),
            "normalization": (Normalization(scheme="nonorm"),) * len(channels),
            "decision": decision,
            "configurations": {name: Configuration.model_validate(network)},
        }
        return Plan.model_validate(whole | fields)

    return build


@pytest.fixture(scope="session")
def write_model(make_plan: Callable[..., Any]) -> Callable[..., Path]:
    """Write a model folder with one complete fold of random weights: `write_model(folder, **as make_plan)`.

    A plan that exists is given as `plan`.
    """

    def write(folder: Path, *, plan: Any = None, **options: Any) -> Path:
        import torch

        from autocrossdim.networks.build import build_network
        from autocrossdim.records.checkpoint import Checkpoint
        from autocrossdim.records.run_state import RunState

        torch.manual_seed(0)
        plan = make_plan(**options) if plan is None else plan
        checkpoint = Checkpoint(
            plan=plan,
            configuration=plan.decision.configuration,
            fold=0,
            split={"train": ["a"], "val": ["b"]},
            network=build_network(plan.network_plan(plan.configuration()), None).state_dict(),
            settings={},
            provenance={"weights": "random"},
            run=RunState(epoch=1, step=1, seconds=1.0, best=0.0, complete=True),
        )
        checkpoint.write(folder / "fold_0" / "checkpoint_latest")
        return folder

    return write


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the console take the captured stderr for a terminal of 80 columns."""
    from autocrossdim.system import console

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(console.console, "is_interactive", True)
    monkeypatch.setattr(console.console, "_force_terminal", True)
    monkeypatch.setattr(console.console, "width", 80)
    monkeypatch.setattr(console, "is_terminal", lambda: True)


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """A directory of a user who is not root, while the test runs as that user: root ignores permissions.

    pytest's own temporary directory cannot be used, because only its owner may enter it.
    """
    if not hasattr(os, "geteuid"):
        pytest.skip("Windows has no permissions of this kind")
    folder = Path(tempfile.mkdtemp()).resolve()
    root = os.geteuid() == 0
    if root:
        os.chown(folder, NOBODY, NOBODY)
        os.seteuid(NOBODY)
    try:
        yield folder
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(0o700)
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data beside the checkout; the test is skipped where there is none."""
    folder = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}")
    return folder


@pytest.fixture(scope="session")
def write_series() -> Callable[..., list[Any]]:
    """Write a DICOM series: `write_series(folder, array, spacing, direction, PatientAge="040Y")`; return its slices.

    The array is (Z, Y, X) of int16, the spacing in mm (z, y, x), the direction that of ITK, row by row. Names of the
    files do not follow the positions of the slices. The test is skipped where pydicom is missing.
    """
    pydicom = pytest.importorskip("pydicom")

    def write(
        folder: Path,
        array: np.ndarray,
        spacing: Sequence[float] = (4.0, 1.5, 0.75),
        direction: Sequence[float] = (1, 0, 0, 0, 1, 0, 0, 0, 1),
        **elements: Any,
    ) -> list[Any]:
        from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

        folder.mkdir(parents=True, exist_ok=True)
        axes = np.array(direction, float).reshape(3, 3)
        study, series, frame = generate_uid(), generate_uid(), generate_uid()
        slices = []
        for z, plane in enumerate(array.astype(np.int16)):
            meta = pydicom.dataset.FileMetaDataset()
            meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
            meta.TransferSyntaxUID = ExplicitVRLittleEndian
            path = folder / f"{(7 * z + 3) % len(array):03d}_{z}.dcm"
            content = pydicom.dataset.FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
            content.SOPClassUID, content.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
            content.StudyInstanceUID, content.SeriesInstanceUID = study, series
            content.FrameOfReferenceUID, content.Modality = frame, "CT"
            content.PatientID, content.PatientName, content.PatientBirthDate = "p7", "Doe^Jo", "19700102"
            content.PatientSex, content.StudyDate, content.StudyTime, content.StudyID = "O", "20200101", "1200", "1"
            content.AccessionNumber, content.ReferringPhysicianName, content.InstanceNumber = "3", "", z + 1
            content.ImagePositionPatient = [round(x, 6) for x in (-4, 7, -100) + axes[:, 2] * spacing[0] * z]
            content.ImageOrientationPatient = [*axes[:, 0], *axes[:, 1]]
            content.PixelSpacing, content.SliceThickness = [spacing[1], spacing[2]], spacing[0]
            content.Rows, content.Columns = plane.shape
            content.BitsAllocated, content.BitsStored, content.HighBit, content.PixelRepresentation = 16, 16, 15, 1
            content.SamplesPerPixel, content.PhotometricInterpretation = 1, "MONOCHROME2"
            content.RescaleSlope, content.RescaleIntercept, content.PixelData = 1, 0, plane.tobytes()
            content.SpecificCharacterSet = "ISO_IR 100"
            for keyword, value in elements.items():
                setattr(content, keyword, value)
            content.save_as(path, enforce_file_format=True)
            slices.append(content)
        return slices

    return write
