"""Mangled files thrown at what reads them: a UserError of one line or a result, and nothing is ever executed.

The mangling is seeded, so that a failure comes back; the failing file is kept in pytest's temporary folder.
"""

import copy
import gzip
import io
import json
import pickle
import random
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from torch import Tensor, nn

from autocrossdim.data.images import read_label
from autocrossdim.inference.inputs import find_inputs
from autocrossdim.inference.model import Model
from autocrossdim.inference.predictor import Predictor
from autocrossdim.networks.build import build_network
from autocrossdim.preprocessing import case as preprocessing_case
from autocrossdim.records.plan import Plan
from autocrossdim.system.errors import UserError

RAMP = np.arange(4 * 6 * 5).reshape(4, 6, 5).astype(np.int16)


def only_user_errors(attempt: Callable[[], Any], what: str) -> bool:
    """Say whether `attempt` succeeded; anything but a UserError of one line fails the test."""
    try:
        attempt()
    except UserError as error:
        if "\n" in str(error):
            pytest.fail(f"{what}: {error}")
        return False
    except Exception as error:
        raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error
    return True


def mangled(content: bytes, chance: random.Random) -> bytes:
    """Flip, set, cut, double or remove bytes, headers more often than voxels."""
    data = bytearray(content)
    header = min(len(data), 400)
    how = chance.choice(["bytes", "cut", "header", "run", "number", "part"])
    if how == "bytes":
        for _ in range(chance.choice([1, 2, 16])):
            data[chance.randrange(len(data))] = chance.randrange(256)
    elif how == "cut":
        del data[chance.randrange(len(data)) :]
    elif how == "header":
        for _ in range(chance.choice([1, 3])):
            data[chance.randrange(header)] = chance.choice([0, 1, 127, 128, 255])
    elif how == "run":
        start, length = chance.randrange(header), chance.choice([2, 4, 8])
        data[start : start + length] = chance.choice([b"\xff", b"\0", b"\x7f"]) * length
    elif how == "number":
        digits = [index for index, byte in enumerate(data[:600]) if chr(byte).isdigit()] or [0]
        index = chance.choice(digits)
        data[index : index + 1] = chance.choice([b"0", b"-1", b"99999999", b"nan", b"1e9", b"x"])
    else:
        start, stop = sorted(chance.randrange(len(data)) for _ in range(2))
        data[start:stop] = b"" if chance.random() < 0.5 else data[start:stop] * 2
    return bytes(data)


# --- images


class Brighter(nn.Module):
    """Says where the first channel is bright."""

    def __init__(self) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.tensor(50.0))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.level - x[:, :1], x[:, :1] - self.level], dim=1)


@pytest.fixture
def predictor(make_plan: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch) -> Predictor:
    """Of one channel; a mangled spacing makes no image that takes long."""
    monkeypatch.setattr(preprocessing_case, "MAX_VOXELS", 2**18)
    monkeypatch.setattr(preprocessing_case, "MAX_AXIS", 2**10)
    plan = make_plan(3, patch_size=(64, 64, 64))
    return Predictor([Model(plan, plan.configuration(), [Brighter().eval()])], mirroring=False)


def write_sound(folder: Path, ending: str) -> Path:
    """Write an image that can be segmented."""
    path = folder / f"sound{ending.replace('compressed', '')}"
    array = RAMP.astype(np.uint8)[0] if ending in (".png", ".bmp") else RAMP
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path), ending.startswith("compressed"))
    return path


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow warns of what it then refuses
@pytest.mark.parametrize(
    "ending",
    [".nii", ".nii.gz", ".nrrd", "compressed.nrrd", ".mha", "compressed.mha", ".png", ".bmp", ".tif"],
)
def test_mangled_images(predictor: Predictor, tmp_path: Path, ending: str) -> None:
    chance = random.Random(ending)
    sound = write_sound(tmp_path, ending)
    path = tmp_path / f"mangled{''.join(sound.suffixes)}"
    outcomes = [only_user_errors(lambda: predictor([sound]), "sound")]
    for number in range(120):
        content = sound.read_bytes()
        if ending == ".nii.gz" and number % 2:  # past the checksum
            path.write_bytes(gzip.compress(mangled(gzip.decompress(content), chance)))
        else:
            path.write_bytes(mangled(content, chance))
        outcomes.append(only_user_errors(lambda: predictor([path]), f"{ending} {number}"))
        only_user_errors(lambda: read_label(path), f"{ending} {number} as a label")
    assert outcomes[0]
    assert np.mean(outcomes) < 0.8, "mangling hardly harms"


def test_mangled_dicom_series(predictor: Predictor, tmp_path: Path) -> None:
    chance = random.Random(0)
    series = tmp_path / "series"
    series.mkdir()
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for z in range(3):
        image = sitk.GetImageFromArray(RAMP[z : z + 1])
        tags = {"0020|000d": "1.2", "0020|000e": "1.2.3", "0020|0013": str(z), "0020|0032": f"0\\0\\{z}"}
        for tag, value in tags.items():
            image.SetMetaData(tag, value)
        writer.SetFileName(str(series / f"{z}.dcm"))
        writer.Execute(image)
    sound = (series / "1.dcm").read_bytes()

    def attempt() -> None:
        (case,) = find_inputs(series, 1, ".nii.gz")
        predictor(case.images)

    assert only_user_errors(attempt, "sound")
    for number in range(12):
        (series / "1.dcm").write_bytes(mangled(sound, chance))
        only_user_errors(attempt, f"DICOM {number}")


def test_a_header_that_speaks_of_more_voxels_than_there_are_is_refused_before_memory_is_asked_for(
    predictor: Predictor, tmp_path: Path
) -> None:
    for ending in (".nrrd", "compressed.nrrd", ".mha", "compressed.mha"):
        sound = write_sound(tmp_path, ending)
        content = sound.read_bytes()
        for size in (
            b"5 6 5",
            b"5 6 99999999",
            b"99999 99999 99999",
            b"5 0 4",
            b"-5 6 4",
            b"5 6",
            b"5 6 4 1 1 1 1 1 1 1",
        ):
            sound.write_bytes(content.replace(b"5 6 4", size, 1))
            with pytest.raises(UserError, match="sound"):
                predictor([sound])


@pytest.mark.parametrize(
    ("ending", "place", "value"),
    [
        (".mha", b"NDims = 3", b"NDims = -1"),  # ended the whole program
        (".mha", b"NDims = 3", b"NDims = 99"),
        ("compressed.mha", b"5 6 4", b"5 6 5"),  # was filled up with what the memory held before
        (".nii", 108, np.float32(np.nan).tobytes()),  # where voxels begin
        (".nii", 40, np.int16(1).tobytes()),  # number of axes
        (".nii", 40, np.int16(8).tobytes()),
    ],
)
def test_headers_that_were_trouble(
    predictor: Predictor, tmp_path: Path, ending: str, place: bytes | int, value: bytes
) -> None:
    path = write_sound(tmp_path, ending)
    content = path.read_bytes()
    start = place if isinstance(place, int) else content.index(place)
    length = len(value) if isinstance(place, int) else len(place)
    path.write_bytes(content[:start] + value + content[start + length :])
    with pytest.raises(UserError, match="sound"):
        predictor([path])


def test_voxels_and_channels_that_no_network_can_take(predictor: Predictor, tmp_path: Path) -> None:
    for value in (np.nan, np.inf, -np.inf):
        broken = np.where(RAMP == 7, value, RAMP).astype(np.float32)
        path = tmp_path / "broken.nii.gz"
        sitk.WriteImage(sitk.GetImageFromArray(broken), str(path))
        with pytest.raises(UserError, match=r"broken\.nii\.gz: 1 of 120 voxels are NaN or infinite"):
            predictor([path])
    colour = sitk.GetImageFromArray(np.zeros((4, 6, 5, 3), np.uint8), isVector=True)
    sitk.WriteImage(colour, str(tmp_path / "colour.nii.gz"))
    with pytest.raises(UserError, match=r"colour\.nii\.gz: .* needs \(C, Z, Y, X\) with 1 channel"):
        predictor([tmp_path / "colour.nii.gz"])


# --- plans

SENSELESS = [
    *(None, True, 0, -1, 2, 0.5, 10**30, -(10**400), 1e308, float("nan"), float("inf")),
    *("", "x", "../../etc", "\0", "9" * 5000, [], {}, [1], [[1]], [0, 0, 0], [3, 1, 2], {"a": 1}),
]


def places_in(content: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    entries = content.items() if isinstance(content, dict) else enumerate(content if isinstance(content, list) else ())
    for key, value in entries:
        yield (*before, key)
        yield from places_in(value, (*before, key))


def mutated(plan: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    """Remove, rename, repeat, change or replace one to three entries, wherever they are."""
    plan = copy.deepcopy(plan)
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        *way, key = chance.choice(list(places_in(plan)))
        parent: Any = plan
        for step in way:
            parent = parent[step]
        how = chance.choice(["remove", "rename", "repeat", "scale", "replace"])
        if how == "remove":
            del parent[key]
        elif how == "rename" and isinstance(parent, dict):
            parent[f"{key}x"] = parent.pop(key)
        elif how == "repeat" and isinstance(parent, list):
            parent.append(copy.deepcopy(parent[key]))
        elif how == "scale" and type(parent[key]) in (int, float):
            parent[key] = parent[key] * chance.choice([-1, 0, 2, 10**6, 1 / 3])
        else:
            parent[key] = copy.deepcopy(chance.choice(SENSELESS))
    return plan


@pytest.mark.slow
def test_mutated_plans(make_plan: Callable[..., Plan], tmp_path: Path) -> None:
    """What is read can also be built and used."""
    chance = random.Random(0)
    path = tmp_path / "plan.json"
    sound = [json.loads(make_plan(dims).model_dump_json()) for dims in (2, 3)]

    def attempt() -> None:
        plan = Plan.read(path)
        configuration = plan.configuration()
        with torch.device("meta"):
            build_network(plan.network_plan(configuration), None)
        model = Model(plan, configuration, [Brighter().eval()])
        if plan.labels.num_outputs == 2 and len(plan.channel_names) == 1:
            Predictor([model], mirroring=False)(np.ones((1, 4, 6, 5), np.float32), spacing=(1.0, 1.0, 1.0))

    accepted = []
    for number in range(500):
        path.write_text(json.dumps(mutated(chance.choice(sound), chance)))
        accepted.append(only_user_errors(attempt, f"plan {number}: {path.read_text(encoding='utf-8')}"))
    assert 0.05 < np.mean(accepted) < 0.5


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe", b"[" * 100_000, b'{"version": ' + b"9" * 5000 + b"}", b'{"version": 1}', b"[1]", b"null"],
    ids=["empty", "no text", "deep", "long number", "alone", "list", "null"],
)
def test_files_that_are_no_plan(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "plan.json").write_bytes(content)
    with pytest.raises(UserError, match=r"plan\.json: "):
        Plan.read(tmp_path / "plan.json")


# --- checkpoints


@pytest.fixture(scope="module")
def model(write_model: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("fuzz") / "model", dims=2)


@pytest.fixture
def checkpoint(model: Path) -> Iterator[Path]:
    """The file of the model's one fold; what is done to it is undone."""
    path = model / "fold_0" / "checkpoint_latest"
    sound = path.read_bytes()
    yield path
    path.write_bytes(sound)


def load(model: Path) -> Predictor:
    return Predictor.load(model, device="cpu")


def rewritten(content: bytes, change: Callable[[str, bytes], bytes]) -> bytes:
    """Return the zip with members changed and checksums that fit."""
    result = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(result, "w") as new:
        for entry in old.infolist():
            new.writestr(entry.filename, change(entry.filename, old.read(entry)))
    return result.getvalue()


def test_a_single_flipped_bit_in_the_weights_is_noticed(model: Path, checkpoint: Path) -> None:
    """Anywhere in a tensor, of which torch checks nothing."""
    assert only_user_errors(lambda: load(model), "sound")
    sound = checkpoint.read_bytes()
    chance = random.Random(0)
    with zipfile.ZipFile(checkpoint) as archive:
        tensors = [entry for entry in archive.infolist() if "/data/" in entry.filename and entry.file_size]
    for _ in range(10):
        data = bytearray(sound)
        tensor = chance.choice(tensors)
        name, extra = struct.unpack("<HH", sound[tensor.header_offset + 26 : tensor.header_offset + 30])
        place = tensor.header_offset + 30 + name + extra + chance.randrange(tensor.file_size)
        data[place] ^= 1 << chance.randrange(8)
        checkpoint.write_bytes(data)
        with pytest.raises(UserError, match=r"checkpoint_latest: damaged or not a checkpoint.*--restart"):
            load(model)


def test_mangled_checkpoints(model: Path, checkpoint: Path) -> None:
    sound = checkpoint.read_bytes()
    chance = random.Random(0)

    def change(name: str, member: bytes) -> bytes:
        return mangled(member, chance) if name.endswith("data.pkl") else member

    loaded = []
    for number in range(60):
        checkpoint.write_bytes(mangled(sound, chance) if number % 2 else rewritten(sound, change))
        loaded.append(only_user_errors(lambda: load(model), f"checkpoint {number}"))
    assert np.mean(loaded) < 0.5, "mangling hardly harms"


@pytest.mark.slow
def test_checkpoints_with_other_contents(model: Path, checkpoint: Path) -> None:
    sound = torch.load(checkpoint, weights_only=True)
    stem = "encoder.conv_stem.weight"
    contents: list[Any] = [None, 5, [], {}, {"version": sound["version"]}, sound["network"]]
    contents += [{name: value for name, value in sound.items() if name != left_out} for left_out in sound]
    for name in sound:
        contents += [{**sound, name: value} for value in (None, "x", {"a": 1})]
    network = sound["network"]
    contents += [
        {**sound, "network": changed}
        for changed in (
            {**network, stem: network[stem][:1]},
            {**network, "more": network[stem]},
            {**network, stem: "x"},
        )
    ]
    for content in contents:
        torch.save(content, checkpoint)
        if only_user_errors(lambda: load(model), str(content)[:200]):
            # These say nothing that prediction needs.
            assert {name for name in sound if content.get(name) != sound[name]} <= {
                *("fold", "split", "settings", "provenance", "sources", "images", "resume", "environments")
            }


class Executes:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


def test_nothing_in_a_checkpoint_is_executed(model: Path, checkpoint: Path, tmp_path: Path) -> None:
    sound = torch.load(checkpoint, weights_only=True)
    trace = tmp_path / "executed"
    pickle.loads(pickle.dumps(Executes(trace)))
    assert trace.exists(), "the trap works"
    trace.unlink()
    evil = pickle.dumps(Executes(trace), protocol=2)
    original = checkpoint.read_bytes()
    torch.save({**sound, "provenance": {"a": Executes(trace)}}, checkpoint)
    inside = checkpoint.read_bytes()
    torch.save({**sound, "network": Executes(trace)}, checkpoint, _use_new_zipfile_serialization=False)
    legacy = checkpoint.read_bytes()
    swapped = rewritten(original, lambda name, member: evil if name.endswith("data.pkl") else member)
    for content in (inside, legacy, swapped, evil):
        checkpoint.write_bytes(content)
        with pytest.raises(UserError, match=r"checkpoint_latest: damaged or not a checkpoint"):
            load(model)
        assert not trace.exists()
