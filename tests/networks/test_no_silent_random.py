"""Nobody ends up with random weights without having asked for them: every way in which `--weights` can fail.

Each row is one way: what is asked for, and what the error says, which ends in what to do. All go the way of `train`.
"""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from autocrossdim.networks import weights as weights_module
from autocrossdim.records.checkpoint import Checkpoint
from autocrossdim.records.network import NetworkPlan
from autocrossdim.records.workspace import FoldFolder
from autocrossdim.system.errors import UserError
from trainers.start import starting_network

ARCH = "test_efficientnet"
STEM = "conv_stem.weight"
WAYS_OUT = r"Use --weights FILE for a downloaded file, or --weights random to start from random weights\.$"
State = dict[str, torch.Tensor]


def changed(**tensors: Any) -> Callable[[State], State]:
    return lambda state: state | {name.replace("__", "."): value for name, value in tensors.items()}


def without(part: str) -> Callable[[State], State]:
    return lambda state: {name: value for name, value in state.items() if part not in name}


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


class Code:
    """What an unsafe loader would run."""

    def __reduce__(self) -> tuple[Any, ...]:
        return pytest.fail, ("it was executed",)


# What a file of encoder weights may have wrong, and the name it has.
FILES: dict[str, tuple[str, Callable[[State], Any], str]] = {
    "another family": ("w.pth", lambda _: timm.create_model("test_resnet").state_dict(), "not weights of test_eff"),
    "no stem": ("w.pth", without(STEM), f"lacks {STEM}"),
    "layers missing": ("w.pth", without("blocks.1."), r"lacks blocks\.1\..* and \d+ more"),
    "statistics missing": ("w.pth", without("running_var"), "lacks bn1.running_var"),
    "extra keys": ("w.pth", changed(adapter=torch.zeros(3)), "has unknown adapter"),
    "prefixed keys": ("w.pth", lambda s: {f"module.{k}": v for k, v in s.items()}, "has unknown module"),
    "other shapes": ("w.pth", changed(conv_stem__weight=torch.zeros(24, 1, 3, 3)), "has other shapes: conv_stem"),
    "nothing in it": ("w.pth", lambda _: {}, "lacks conv_stem"),
    "no tensors": ("w.pth", lambda _: {"epoch": 3}, "not a state_dict"),
    "code": ("w.pth", changed(conv_stem__weight=Code()), "not a readable"),
    "code in a checkpoint's name": ("checkpoint_w", changed(conv_stem__weight=Code()), "damaged or not a checkpoint"),
}
WORDS = {
    "no such tag": ("noisy_student", f"{ARCH} has no such tag"),
    "a word misspelt": ("imagnet", "neither a file nor imagenet"),
    "a full name of another family": ("resnet18.a1_in1k", "weights of resnet18, but the encoder is"),
    "a full name with an unknown tag": (f"{ARCH}.none", "timm has no such tag"),
    "a bare name": (ARCH, "neither a file nor imagenet"),
    "no such file": ("nowhere/w.safetensors", "no such file"),
    "no such file of an unknown kind": ("nowhere/w.h5", "no such file"),
}


@pytest.fixture
def plan() -> NetworkPlan:
    return network_plan(3)


def network_plan(dims: int, **fields: Any) -> NetworkPlan:
    shape = {"strides": [[2] * dims] * 3, "kernel_sizes": [[3] * dims] * 4}
    return NetworkPlan.model_validate(
        {"encoder": ARCH, "dims": dims, "in_channels": 1, "num_outputs": 2} | shape | fields
    )


@pytest.fixture
def fold(tmp_path: Path) -> FoldFolder:
    """The fold to be trained, of which nothing is there yet."""
    return FoldFolder(tmp_path / "Dataset001_Tiny" / "models" / "dx" / "fold_0")


@pytest.fixture(scope="module")
def state() -> State:
    torch.manual_seed(0)
    return timm.create_model(ARCH, num_classes=5).state_dict()


def refused(plan: NetworkPlan, weights: str | Path, fold: FoldFolder, message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        starting_network(plan, str(weights), fold)
    assert "\n" not in str(raised.value)


# --- a network that was asked for is what one gets


def test_the_only_word_for_random_is_random(plan: NetworkPlan, fold: FoldFolder) -> None:
    network, provenance = starting_network(plan, "random", fold)
    assert provenance["weights"] == "random"
    assert network.load_report.parameters["matched"] + network.load_report.parameters["adapted"] == 0


def test_a_file_that_fits_fills_the_whole_encoder(
    plan: NetworkPlan, fold: FoldFolder, state: State, tmp_path: Path
) -> None:
    """So that the rows below fail for what is wrong with them and for nothing else."""
    torch.save(state, tmp_path / "w.pth")
    network, provenance = starting_network(plan, str(tmp_path / "w.pth"), fold)
    new = {name for name, status, _ in network.load_report.layers if status == "new"}
    assert not any(name.startswith("encoder.") for name in new)
    assert provenance["source"] == "w.pth"


# --- encoder weights


@pytest.mark.parametrize("what", FILES)
def test_a_file_of_encoder_weights(
    plan: NetworkPlan, fold: FoldFolder, state: State, tmp_path: Path, what: str
) -> None:
    name, spoil, message = FILES[what]
    torch.save(spoil(dict(state)), tmp_path / name)
    remedy = WAYS_OUT if name == "w.pth" else r"--restart\.$"
    refused(plan, tmp_path / name, fold, f"{name}.*{message}.*{remedy}")


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_a_file_that_was_cut_short(
    plan: NetworkPlan, fold: FoldFolder, state: State, tmp_path: Path, ending: str
) -> None:
    path = tmp_path / f"w{ending}"
    torch.save(state, path) if ending == ".pth" else save_file(state, path)
    cut(path)
    refused(plan, path, fold, f"w{ending}: not a readable .*{WAYS_OUT}")


@pytest.mark.parametrize("name", ["w.txt", "w.pth", "w.safetensors", "w.onnx", "checkpoint_w", "w.nii.gz"])
def test_a_file_of_another_type(plan: NetworkPlan, fold: FoldFolder, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"something else altogether")
    remedy = WAYS_OUT if "checkpoint" not in name else r"--restart\.$"
    refused(plan, tmp_path / name, fold, f"{name}: (not a readable|damaged).*{remedy}")


@pytest.mark.parametrize("what", WORDS)
def test_words_that_mean_nothing_for_this_encoder(plan: NetworkPlan, fold: FoldFolder, what: str) -> None:
    asked, message = WORDS[what]
    refused(plan, asked, fold, f"{asked}: .*{message}.*{WAYS_OUT}")


@pytest.mark.parametrize("asked", ["imagenet", f"{ARCH}.r160_in1k"])
@pytest.mark.parametrize("way", ["offline", "no network", "not there"])
def test_a_hub_that_does_not_give_them(
    plan: NetworkPlan, fold: FoldFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str, way: str
) -> None:
    monkeypatch.setattr(weights_module, "try_to_load_from_cache", lambda *_: None)
    if way == "offline":
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    class Session:
        def head(self, url: str, timeout: float) -> None:
            if way != "not there":
                raise OSError("Name or service not known")

    def download(*_: str) -> str:
        raise FileNotFoundError("404 Client Error: Repository Not Found")

    monkeypatch.setattr(weights_module, "get_session", Session)
    monkeypatch.setattr(weights_module, "hf_hub_download", download)
    refused(plan, asked, fold, f"timm/{ARCH}.r160_in1k: cannot be downloaded from the hub .*{WAYS_OUT}")


def test_a_cached_file_that_is_damaged(
    plan: NetworkPlan, fold: FoldFolder, state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file(state, tmp_path / "model.safetensors")
    cut(tmp_path / "model.safetensors")
    cached = str(tmp_path / "model.safetensors")
    monkeypatch.setattr(weights_module, "try_to_load_from_cache", lambda *_: cached)
    refused(plan, "imagenet", fold, f"model.safetensors: not a readable .*{WAYS_OUT}")


# --- trained models


def test_omnia_that_was_not_trained_or_not_in_this_fold(
    plan: NetworkPlan, fold: FoldFolder, write_model: Callable[..., Path]
) -> None:
    refused(plan, "omnia", fold, "Train it first: `autocrossdim train DATASET --config omnia --fold 0`")
    omnia = write_model(fold.root.parent.parent / "omnia", dims=2)
    (omnia / "fold_0").rename(omnia / "fold_1")
    refused(plan, "omnia", fold, "--config omnia --fold 0`")
    (omnia / "fold_1").rename(omnia / "fold_0")
    network, _ = starting_network(plan, "omnia", fold)
    assert network.load_report.parameters["new"] == 0


def test_a_model_folder_without_a_checkpoint(
    plan: NetworkPlan, fold: FoldFolder, tmp_path: Path, write_model: Callable[..., Path]
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    refused(plan, empty, fold, "contains neither checkpoint_latest nor fold_0")
    other = write_model(tmp_path / "other")
    shutil.move(other / "fold_0", other / "fold_3")
    refused(plan, other, fold, "contains neither checkpoint_latest nor fold_0")


@pytest.mark.parametrize("asked", ["folder", "fold", "checkpoint"])
def test_a_checkpoint_that_is_damaged_or_lacks_layers(
    plan: NetworkPlan, fold: FoldFolder, tmp_path: Path, write_model: Callable[..., Path], asked: str
) -> None:
    model = write_model(tmp_path / "model")
    file = model / "fold_0" / "checkpoint_latest"
    weights = {"folder": model, "fold": model / "fold_0", "checkpoint": file}[asked]
    sound = Checkpoint.read(file)
    network, _ = starting_network(plan, str(weights), fold)
    assert network.load_report.parameters["new"] == 0
    stem = f"encoder.{STEM}"
    less = {name: value for name, value in sound.network.items() if name != stem}
    for spoilt in (less, {**sound.network, "more": torch.zeros(3)}, {}):
        replace(sound, network=spoilt).write(file)
        refused(plan, weights, fold, r"checkpoint_latest: its weights do not fit the planned network.*--restart")
    sound.write(file)
    cut(file)
    refused(plan, weights, fold, r"checkpoint_latest: damaged or not a checkpoint.*--restart")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"encoder": "test_resnet"}, "its encoder is test_efficientnet, the plan's test_resnet; they must be the same"),
        ({"network": "paper"}, "its network is default, the plan's paper; they must be the same"),
        ({"dims": 2}, "is 3D: its weights cannot start a 2D network"),
    ],
)
def test_a_trained_model_of_another_kind(
    fold: FoldFolder, tmp_path: Path, write_model: Callable[..., Path], fields: dict[str, Any], message: str
) -> None:
    model = write_model(tmp_path / "model", dims=3)
    refused(network_plan(**({"dims": 3} | fields)), model, fold, message)
