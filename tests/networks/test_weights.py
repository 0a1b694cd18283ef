"""Weights: found, checked, or an error; never silently random."""

import hashlib
import json
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from autocrossdim.networks import weights as module
from autocrossdim.networks.build import build_network
from autocrossdim.networks.transfer import adapt_channels
from autocrossdim.networks.weights import resolve_weights
from autocrossdim.records.network import NetworkPlan
from autocrossdim.system.errors import UserError

ARCH = "test_efficientnet"
REAL = Path(__file__).resolve().parents[2].parent / "shared" / "weights" / "tf_efficientnetv2_b0.imagenet.pth"


def make_plan(dims: int = 2, **fields) -> NetworkPlan:
    defaults = {"encoder": ARCH, "dims": dims, "in_channels": 1, "num_outputs": 3}
    defaults |= {"strides": [[2] * dims] * 3, "kernel_sizes": [[3] * dims] * 4}
    return NetworkPlan.model_validate(defaults | fields)


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return timm.create_model(ARCH, num_classes=5).state_dict()


@pytest.fixture
def file(state: dict[str, torch.Tensor], tmp_path: Path) -> Path:
    torch.save(state, tmp_path / "weights.pth")
    return tmp_path / "weights.pth"


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    class Session:
        def head(self, url: str, timeout: float) -> None:
            raise OSError("Name or service not known")

    monkeypatch.setattr(module, "get_session", Session)
    monkeypatch.setattr(module, "try_to_load_from_cache", lambda *_: None)


# --- found


@pytest.mark.parametrize("wrapping", [None, "state_dict", "model"])
@pytest.mark.parametrize("classifier", [True, False])
def test_a_file_is_read_with_its_provenance(
    state: dict[str, torch.Tensor], tmp_path: Path, wrapping: str | None, classifier: bool
) -> None:
    if not classifier:
        state = {name: value for name, value in state.items() if not name.startswith("classifier")}
    path = tmp_path / "mine.pth"
    torch.save({wrapping: state, "epoch": 3} if wrapping else state, path)
    weights = resolve_weights(str(path), ARCH)
    assert weights is not None
    provenance = json.loads(json.dumps(weights.provenance()))
    assert provenance["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert provenance["source"] == "mine.pth"
    assert provenance["encoder"] == ARCH
    assert len(provenance["mean"]) == len(provenance["std"]) == 3
    network = build_network(make_plan(in_channels=3), weights)
    for name, value in network.encoder.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_safetensors_are_read(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    save_file({name: value.contiguous() for name, value in state.items()}, tmp_path / "w.safetensors")
    weights = resolve_weights(str(tmp_path / "w.safetensors"), f"{ARCH}.r160_in1k")
    assert weights is not None
    assert torch.equal(weights.state_dict["conv_stem.weight"], state["conv_stem.weight"])


def test_random_is_random_only_because_it_was_asked_for() -> None:
    assert resolve_weights("random", ARCH) is None
    report = build_network(make_plan(), None).load_report
    assert {status for _, status, _ in report.layers} == {"new"}
    assert "randomly initialised" in str(report)


@pytest.mark.parametrize(
    ("request_", "encoder", "name"),
    [
        ("imagenet", "efficientnet_b0", "efficientnet_b0.ra_in1k"),
        ("imagenet", "tf_efficientnet_b0", "tf_efficientnet_b0.aa_in1k"),
        ("imagenet", "tf_efficientnet_b0.in1k", "tf_efficientnet_b0.in1k"),
        ("imagenet", "tf_efficientnetv2_s", "tf_efficientnetv2_s.in1k"),
        ("imagenet", "resnet50", "resnet50.a1_in1k"),
        ("imagenet", "convnext_tiny", "convnext_tiny.fb_in1k"),
        ("noisy_student", "tf_efficientnet_b4", "tf_efficientnet_b4.ns_jft_in1k"),
        ("resnet18.tv_in1k", "resnet18.a1_in1k", "resnet18.tv_in1k"),
    ],
)
def test_words_stand_for_full_names(monkeypatch: pytest.MonkeyPatch, request_: str, encoder: str, name: str) -> None:
    asked = []

    def fetch(repository: str) -> Path:
        asked.append(repository)
        raise UserError("stop here")

    monkeypatch.setattr(module, "_fetch", fetch)
    with pytest.raises(UserError, match="stop here"):
        resolve_weights(request_, encoder)
    assert asked == [f"timm/{name}"]


def test_the_hub_gives_tag_and_licence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    torch.save(timm.create_model("resnet18").state_dict(), tmp_path / "model.pth")
    monkeypatch.setattr(module, "try_to_load_from_cache", lambda *_: str(tmp_path / "model.pth"))
    weights = resolve_weights("imagenet", "resnet18")
    assert weights is not None
    assert (weights.source, weights.tag, weights.licence) == ("timm/resnet18.a1_in1k", "a1_in1k", "apache-2.0")


# --- not to be had


@pytest.mark.usefixtures("no_hub")
@pytest.mark.parametrize("request_", ["imagenet", "tf_efficientnet_b0.ns_jft_in1k"])
def test_a_hub_out_of_reach_names_the_two_ways_out(request_: str) -> None:
    with pytest.raises(UserError, match=r"cannot be downloaded.*\(Name or .*--weights FILE .*--weights random"):
        resolve_weights(request_, "tf_efficientnet_b0")


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ("noisy_student", "efficientnet_b0 has no such tag, only ra_in1k, ra4_"),
        ("resnet18.a1_in1k", "weights of resnet18, but the encoder is efficientnet_b0"),
        ("efficientnet_b0.no_such", "no such tag; efficientnet_b0 has ra_in1k"),
        ("imagnet", "neither a file nor imagenet, noisy_student, random or a full timm name"),
        ("nowhere/weights.pth", "no such file"),
    ],
)
def test_requests_that_mean_nothing(request_: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        resolve_weights(request_, "efficientnet_b0")


def test_an_encoder_that_timm_does_not_have() -> None:
    with pytest.raises(UserError, match="timm has no such model"):
        resolve_weights("imagenet", "efficientnetb0")


def spoilt(state: dict[str, torch.Tensor], how: str) -> object:
    if how == "missing stem":
        del state["conv_stem.weight"]
    elif how == "missing many":
        return {name: value for name, value in state.items() if not name.startswith("blocks.1.")}
    elif how == "extra":
        state["attention.weight"] = torch.zeros(3)
    elif how == "prefixed":
        return {f"module.{name}": value for name, value in state.items()}
    elif how == "other stem":
        state["conv_stem.weight"] = state["conv_stem.weight"][:, :1]
    elif how == "other family":
        return timm.create_model("test_resnet").state_dict()
    elif how == "other member":
        return timm.create_model("efficientnet_lite0").state_dict()
    elif how == "list":
        return list(state.values())
    elif how == "numbers":
        return {"epoch": 3}
    return state


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing stem", "it lacks conv_stem.weight"),
        ("missing many", r"it lacks blocks\.1\.\S+, blocks\.1\.\S+, blocks\.1\.\S+ and \d+ more"),
        ("extra", "it has unknown attention.weight"),
        ("prefixed", r"it lacks conv_stem\.weight.*it has unknown module\.conv_stem\.weight"),
        ("other stem", r"has other shapes: conv_stem\.weight \(\d+x1x3x3, not \d+x3x3x3\)"),
        ("other family", "not weights of test_efficientnet"),
        ("other member", "has other shapes"),
        ("list", "not a state_dict"),
        ("numbers", "not a state_dict"),
    ],
)
def test_files_that_do_not_fit_are_errors_that_say_why(
    state: dict[str, torch.Tensor], tmp_path: Path, how: str, message: str
) -> None:
    torch.save(spoilt(state, how), tmp_path / "bad.pth")
    with pytest.raises(UserError, match=message) as raised:
        resolve_weights(str(tmp_path / "bad.pth"), ARCH)
    assert "bad.pth" in str(raised.value)


class Evil:
    """What weights_only is there to refuse."""

    def __reduce__(self):
        return print, ("run by pickle",)


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_damaged_and_dangerous_files_are_not_read(file: Path, tmp_path: Path, capsys, ending: str) -> None:
    cut = tmp_path / f"cut{ending}"
    cut.write_bytes(file.read_bytes()[:500])
    with pytest.raises(UserError, match="not a readable"):
        resolve_weights(str(cut), ARCH)
    torch.save({"conv_stem.weight": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(UserError, match="not a readable"):
        resolve_weights(str(tmp_path / "evil.pth"), ARCH)
    assert "run by pickle" not in capsys.readouterr().out


def test_weights_of_another_encoder_are_not_built_in(file: Path) -> None:
    weights = resolve_weights(str(file), ARCH)
    with pytest.raises(UserError, match="weights of test_efficientnet, but the plan's encoder is test_resnet"):
        build_network(make_plan(encoder="test_resnet"), weights)


# --- channels


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 6, 9])
def test_equal_channels_give_equal_response(file: Path, channels: int) -> None:
    weights = resolve_weights(str(file), ARCH)
    x = torch.randn(1, 1, 32, 32)
    of_rgb = build_network(make_plan(in_channels=3), weights).eval().encoder(x.repeat(1, 3, 1, 1))
    ours = build_network(make_plan(in_channels=channels), weights).eval().encoder(x.repeat(1, channels, 1, 1))
    for feature, expected in zip(ours, of_rgb, strict=True):
        torch.testing.assert_close(feature, expected, atol=1e-4, rtol=1e-4)


def test_the_rule_is_the_sum_for_one_and_repetition_for_multiples() -> None:
    weight = torch.randn(8, 3, 5, 5)
    torch.testing.assert_close(adapt_channels(weight, 1), weight.sum(1, keepdim=True))
    torch.testing.assert_close(adapt_channels(weight, 6), weight.repeat(1, 2, 1, 1) / 2)
    assert adapt_channels(weight, 3) is weight
    four = adapt_channels(weight, 4)
    torch.testing.assert_close(four[:, 0], four[:, 3])
    torch.testing.assert_close(four[:, 0] - four[:, 1], (weight[:, 0] - weight[:, 1]) * 3 / 4)


# --- reported


def test_the_report_counts_what_came_from_where(file: Path) -> None:
    network = build_network(make_plan(3), resolve_weights(str(file), ARCH))
    report = network.load_report
    status = {name: status for name, status, _ in report.layers}
    assert status["encoder.conv_stem.weight"] == "adapted"
    assert status["encoder.bn1.running_var"] == "matched"
    assert status["pre.conv.weight"] == status["head.bias"] == "new"
    assert "classifier.weight" in " ".join(report.unused)
    assert sum(report.parameters.values()) == sum(p.numel() for p in network.parameters())
    encoder = sum(p.numel() for p in network.encoder.parameters())
    assert report.parameters["matched"] + report.parameters["adapted"] == encoder
    assert str(report).startswith(f"{encoder:,} parameters in ")
    assert "from weights.pth (" in str(report)
    assert "stem adapted 3 -> 1 channels" in str(report)
    assert "kernels fitted by center" in str(report)
    assert str(report).endswith(f"; {report.parameters['new']:,} new")
    assert "\n" not in str(report)


def test_the_papers_stem_cannot_take_the_weights_and_the_report_says_so(file: Path) -> None:
    network = build_network(make_plan(network="paper"), resolve_weights(str(file), ARCH))
    stem = [layer for layer in network.load_report.layers if layer[0] == "encoder.conv_stem.weight"]
    assert stem == [("encoder.conv_stem.weight", "new", "shape 24x3x3x3 in the source, 24x16x3x3 here")]
    pretrained = {id(parameter) for parameter in network.encoder_parameters()}
    assert id(network.encoder.conv_stem.weight) not in pretrained
    assert id(network.encoder.bn1.weight) in pretrained


def test_ds_net_takes_them_into_its_2d_part(file: Path, state: dict[str, torch.Tensor]) -> None:
    plan = make_plan(3, kind="ds", depth=20, strides=[[1, 2, 2]] * 3)
    network = build_network(plan, resolve_weights(str(file), ARCH))
    assert torch.equal(network.unet.encoder.conv_stem.weight, state["conv_stem.weight"])
    assert network.load_report.parameters["matched"] == sum(p.numel() for p in network.encoder_parameters())


@pytest.mark.skipif(not REAL.is_file(), reason=f"{REAL} is not there")
@pytest.mark.parametrize("dims", [2, 3])
def test_real_weights(dims: int) -> None:
    plan = make_plan(dims, encoder="tf_efficientnetv2_b0", strides=[[2] * dims] * 5, kernel_sizes=[[3] * dims] * 6)
    network = build_network(plan, resolve_weights(str(REAL), plan.encoder)).eval()
    model = timm.create_model("tf_efficientnetv2_b0", num_classes=0).eval()
    model.load_state_dict(torch.load(REAL, weights_only=True))
    x = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        expected = model.forward_intermediates(x.repeat(1, 3, 1, 1), intermediates_only=True)[1:]
        features = network.encoder(x if dims == 2 else x.unsqueeze(2).repeat(1, 1, 33, 1, 1))[1:]
    for feature, reference in zip(features, expected, strict=True):
        middle = feature if dims == 2 else feature[:, :, 0]
        assert (middle - reference).abs().max() < 1e-5 * reference.abs().max()
