import copy
import json
import random
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from autocrossdim import predict
from autocrossdim.data.geometry import Geometry
from autocrossdim.data.images import write_array
from autocrossdim.inference.predictor import Predictor
from autocrossdim.models.model_file import ModelFile
from autocrossdim.records.best import Best, plan_digest
from autocrossdim.records.plan import Plan
from autocrossdim.system.errors import UserError

WEIGHTS = "weights/dx/fold_0.safetensors"
SPACING = (1.0, 1.0, 1.0)

Repack = Callable[..., Path]


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(1, 9, 10, 11)).astype(np.float32)


def member(file: Path, name: str) -> Any:
    with zipfile.ZipFile(file) as archive:
        content = archive.read(name)
    return json.loads(content) if name.endswith(".json") else content


def refused(file: Path, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        Predictor.load(file, device="cpu", **options)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("chosen", [{}, {"fold": [1]}, {"fold": ["1", "0"]}, {"config": ["dx"]}])
def test_a_file_segments_as_the_work_folder_does_bit_for_bit(
    trained: Path, exported: Path, image: np.ndarray, chosen: dict[str, Any]
) -> None:
    here = Predictor.load(trained, device="cpu", **chosen)(image, spacing=SPACING, probabilities=True)
    there = Predictor.load(exported, device="cpu", **chosen)(image, spacing=SPACING, probabilities=True)
    assert there.label.tobytes() == here.label.tobytes()
    assert there.probabilities is not None
    assert here.probabilities is not None
    assert there.probabilities.tobytes() == here.probabilities.tobytes()


def test_predict_takes_a_file(exported: Path, image: np.ndarray, tmp_path: Path) -> None:
    geometry = Geometry((9, 10, 11), SPACING, (0, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, 1), 3)
    write_array(image[0], geometry, tmp_path / "in" / "a_0000.nii.gz")
    (written,) = predict(exported, tmp_path / "in", tmp_path / "out", device="cpu")
    assert written == tmp_path / "out" / "a.nii.gz"
    assert written.exists()


def test_what_is_not_in_the_file_cannot_be_chosen(exported: Path) -> None:
    assert "contains fold_0, fold_1" in refused(exported, fold=[4])
    assert "contains dx" in refused(exported, config=["omnia"])
    assert "no such file" in refused(exported.with_name("absent.acd"))


def test_a_checkpoint_is_no_model_file(trained: Path) -> None:
    assert "not a model file" in refused(trained / "models" / "dx" / "fold_0" / "checkpoint_latest")


def test_damage_anywhere_is_noticed(exported: Path, tmp_path: Path) -> None:
    content = exported.read_bytes()
    file = tmp_path / "damaged.acd"
    draw = random.Random(0)
    for _ in range(50):
        changed = bytearray(content)
        changed[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        file.write_bytes(changed)
        refused(file)
        file.write_bytes(content[: draw.randrange(len(content))])
        refused(file)


def test_weights_of_another_fold_are_noticed(exported: Path, tmp_path: Path, forged: Any) -> None:
    with zipfile.ZipFile(exported) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    other = WEIGHTS.replace("0", "1")
    members[WEIGHTS], members[other] = members[other], members[WEIGHTS]
    assert WEIGHTS in refused(forged(tmp_path / "swapped.acd", members.items()))


@pytest.mark.parametrize("name", ["run.py", "../plan.json", "/etc/cron.d/x", "weights/dx/fold_0.pt", "weights/../x"])
def test_an_unknown_member_is_refused_by_name(exported: Path, tmp_path: Path, repacked: Repack, name: str) -> None:
    assert name in refused(repacked(exported, tmp_path / "more.acd", **{name: b"import os"}))


@pytest.mark.parametrize("name", ["plan.json", "about.json", WEIGHTS])
def test_a_missing_member_is_noticed(exported: Path, tmp_path: Path, repacked: Repack, name: str) -> None:
    refused(repacked(exported, tmp_path / "less.acd", **{name: None}))


def weights(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[bytes], bytes]:
    def changed(content: bytes) -> bytes:
        state = safetensors.torch.load(content)
        change(state)
        return safetensors.torch.save(state)

    return changed


@pytest.mark.parametrize(
    "change",
    [
        lambda content: b"",
        lambda content: b"\xff" * 100,
        lambda content: content[:-1],
        lambda content: (2**62).to_bytes(8, "little") + content[8:],
        lambda content: content + bytes(10**6),
        weights(lambda state: state.pop("head.bias")),
        weights(lambda state: state.update(more=torch.zeros(1))),
        weights(lambda state: state.update({"head.bias": state["head.bias"][:-1].clone()})),
        weights(lambda state: state.update({"head.bias": state["head.bias"].double()})),
        weights(lambda state: state["head.bias"].fill_(torch.nan)),
    ],
)
def test_weights_that_are_not_the_planned_networks_are_refused(
    exported: Path, tmp_path: Path, repacked: Repack, change: Callable[[bytes], bytes]
) -> None:
    forged = repacked(exported, tmp_path / "forged.acd", **{WEIGHTS: change(member(exported, WEIGHTS))})
    assert WEIGHTS in refused(forged)


def leaves(content: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in a JSON document: its container, and its key there."""
    if isinstance(content, dict | list):
        for key in list(content) if isinstance(content, dict) else range(len(content)):
            yield content, key
            yield from leaves(content[key])


def test_a_forged_plan_segments_or_ends_in_a_clear_error(
    exported: Path, tmp_path: Path, repacked: Repack, image: np.ndarray
) -> None:
    plan = member(exported, "plan.json")
    draw = random.Random(1)
    places = len(list(leaves(plan)))
    values = [None, -1, 0, 7, 2**40, 1e999, -1e999, "", "../../x", [], [0], {}, True]
    segmented, messages = 0, []
    for _ in range(60):
        changed = copy.deepcopy(plan)
        container, key = list(leaves(changed))[draw.randrange(places)]
        container[key] = draw.choice(values)
        file = repacked(exported, tmp_path / "forged.acd", **{"plan.json": json.dumps(changed).encode()})
        try:
            Predictor.load(file, device="cpu", mirroring=False)(image, spacing=SPACING)
            segmented += 1
        except UserError as error:
            messages.append(str(error))
    assert segmented > 0
    assert messages
    assert all(message.startswith(str(file)) and "\n" not in message for message in messages)


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        (["file_ending"], "/../../../home/x.nii.gz", "file_ending"),
        (["version"], 99, "version 99"),
        (["transpose"], [0, 0, 1], "transpose"),
        (["configurations", "a\x1b[2J\nb"], 1, "a?[2J?b"),
        (["channel_names"], ["a", "b"], "normalization"),
        (["labels", "foreground"], {"block": [-1]}, "label values"),
        (["configurations", "dx", "patch_size"], [30000, 30000, 30000], "patch"),
        (["configurations", "dx", "spacing"], [1, 1], "spacing"),
        (["configurations", "dx", "batch_size"], 10**9, "batch_size"),
        (["configurations", "dx", "name"], "omnia", "omnia"),
        (["configurations", "dx", "encoder"], "no_such_net", "cannot be built"),
        (["configurations", "dx", "encoder"], "efficientnet_b4", "not of the planned network"),
        (["configurations", "dx", "kernel_sizes"], [[3, 3, 3]], "kernel_sizes"),
    ],
)
def test_a_plan_that_no_planner_writes_is_refused(
    exported: Path, tmp_path: Path, repacked: Repack, path: list[str], value: Any, named: str
) -> None:
    plan = member(exported, "plan.json")
    *containers, key = path
    container = plan
    for part in containers:
        container = container[part]
    container[key] = value
    assert named in refused(repacked(exported, tmp_path / "f.acd", **{"plan.json": json.dumps(plan).encode()}))


@pytest.mark.parametrize("name", ["plan.json", "about.json", "best.json"])
@pytest.mark.parametrize("content", [b"", b"null", b"{}", b"\xff\xfe", b"[" * 10_000, b'{"a":1}', bytes(5 * 2**20)])
def test_json_that_is_something_else_is_refused_by_name(
    exported: Path, tmp_path: Path, repacked: Repack, name: str, content: bytes
) -> None:
    assert name in refused(repacked(exported, tmp_path / "f.acd", **{name: content}))


def best(plan: Plan, **changes: Any) -> bytes:
    fields = {
        "dataset": plan.dataset,
        "configurations": ["dx"],
        "folds": [0, 1],
        "postprocessing": [{"name": "block", "values": [1]}],
        "dice_postprocessed": 0.8,
        "calibration": {"temperature": 2.0},
        "contenders": [],
        "reasons": [],
        "plan_digest": plan_digest(plan, ["dx"]),
        "checkpoints": {},
    }
    return Best.model_validate(fields | changes).model_dump_json().encode()


NUMBERS = {"intensity": 7, "texture": 1, "size": 3, "spacing": 3}
LIKENESS: dict[str, Any] = {
    "configuration": "dx",
    "image": {name: {"centre": [9] * n, "deviation": [1] * n, "cases": [[0] * n]} for name, n in NUMBERS.items()},
    "features": {},
    "limits": dict.fromkeys(NUMBERS, 1.0),
    "n_cases": 5,
    "n_unlike": 0,
}


def test_what_find_best_found_travels_along(exported: Path, tmp_path: Path, repacked: Repack) -> None:
    plan = ModelFile.read(exported).plan
    file = repacked(exported, tmp_path / "best.acd", **{"best.json": best(plan, likeness=LIKENESS)})
    predictor = Predictor.load(file, device="cpu")
    assert [step.name for step in predictor.steps] == ["block"]
    assert predictor.temperature == 2
    image = np.zeros((1, 8, 8, 8), np.float32)
    image[0, 4:] = 1
    familiarity = predictor(image, spacing=(1.0, 1.0, 1.0)).familiarity
    assert familiarity is not None
    assert familiarity.is_unlike
    short = {"centre": [0], "deviation": [1], "cases": [[0]]}  # the encoder has more channels
    tampered = {**LIKENESS, "features": {"dx/fold_0": short}, "limits": {**LIKENESS["limits"], "features": 1.0}}
    file = repacked(exported, tmp_path / "tampered.acd", **{"best.json": best(plan, likeness=tampered)})
    with pytest.raises(UserError, match="reference cases of 1 numbers, but this model has"):
        Predictor.load(file, device="cpu")(image, spacing=(1.0, 1.0, 1.0))


@pytest.mark.parametrize(
    "changes",
    [
        {"plan_digest": "0" * 64},
        {"configurations": ["dx", "omnia"]},
        {"postprocessing": [{"name": "block", "values": [1], "replaced_by": 77}]},
        {"calibration": {"temperature": -1.0}},
    ],
)
def test_what_was_found_about_another_model_is_refused(
    exported: Path, tmp_path: Path, repacked: Repack, changes: dict[str, Any]
) -> None:
    plan = ModelFile.read(exported).plan
    assert "best.json" in refused(repacked(exported, tmp_path / "f.acd", **{"best.json": best(plan, **changes)}))
