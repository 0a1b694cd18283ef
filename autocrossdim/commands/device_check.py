"""What `autocrossdim doctor --device` runs on a device: networks, memory, speed, training and prediction."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from autocrossdim.commands.device_report import NNUNETS, Row, Section
from autocrossdim.commands.plan_and_preprocess import plan_and_preprocess
from autocrossdim.commands.plugins import MeasuresSteps, find_planner
from autocrossdim.commands.train import train
from autocrossdim.data.phantoms import ISOTROPIC_SPACING, nodules, write_dataset
from autocrossdim.inference.predictor import Predictor
from autocrossdim.inference.residence import Visiting
from autocrossdim.networks.build import build_network
from autocrossdim.networks.depthwise import DepthwiseConv3d
from autocrossdim.records.history import read_history
from autocrossdim.records.network import NO_ENCODER, NetworkPlan
from autocrossdim.records.plan import GIGABYTE, Configuration, Plan
from autocrossdim.records.workspace import Workspace
from autocrossdim.system import device as devices
from autocrossdim.system.console import say
from autocrossdim.system.errors import Interrupted, UserError
from autocrossdim.system.text import by_axis, listed

PLANNER = "auto"
CONFIGURATIONS = ("omnia", "dx")  # the others are the same networks at another resolution or with more channels
LABELS = {"background": 0, "organ": 1, "nodule": 2}

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# Largest relative error (L2 norm) of logits and of all gradients together, against the CPU in fp32. GPUs round the
# inputs of fp32 convolutions to TF32, which has as many digits as fp16. Several times what was measured on an H200
# before depthwise convolutions were computed slice by slice: 0.0006, 0.0063 and 0.0016 (benchmarks/results/gpu.md).
TOLERANCE = {"fp32": 0.005, "bf16": 0.05, "fp16": 0.02}
LOSS_SCALE = 1024.0  # fp16 gradients would be rounded to 0 without it
SECONDS = 8 * 60.0  # that all checks may take; torch.compile gets what the others leave
WORTH_TRYING = 30.0  # seconds; with less left, torch.compile is not tried
CHECKED_SIDE = 64  # voxels per side of the patch on which a GPU is compared with the CPU, which has to keep up


@dataclass(frozen=True)
class Scale:
    """Size of the checks.

    Attributes:
        shape: Shape (Z, Y, X) of the generated volumes.
        plan: Options of the plan.
        settings: Settings of the training.
        layers: Channels, side of the input, kernel and stride of the 3D depthwise layers.
        repeats: Number of timed runs of a layer, of which the fastest counts.
        compiling: Seconds that `torch.compile` may take for each network, if they are left; 0 does not try it.
    """

    shape: tuple[int, int, int]
    plan: dict[str, Any]
    settings: dict[str, Any]
    layers: tuple[tuple[int, int, int, int], ...]
    repeats: int
    compiling: float


TOY = Scale(
    shape=(20, 28, 24),
    plan={"encoder": "test_efficientnet", "patch_size": (16, 16, 16), "batch_size": 2},
    settings={"steps_per_epoch": 2, "workers": 0},
    layers=((8, 6, 3, 1),),
    repeats=2,
    compiling=0,
)
FULL = Scale(
    shape=(96, 160, 160),
    plan={"memory": 8.0},
    settings={"steps_per_epoch": 25},
    layers=((32, 48, 3, 1), (96, 48, 3, 2), (144, 24, 5, 2), (240, 12, 5, 1), (1152, 3, 5, 1), (96, 24, 7, 1)),
    repeats=10,
    compiling=120,
)


def check(device: torch.device, folder: Path) -> list[Section]:
    """Run all checks on a device; on a CPU, they run at toy size.

    Args:
        device: Device to check.
        folder: Empty directory for generated data and results.

    Returns:
        One section per question, in the order in which they are answered.
    """
    scale = TOY if device.type == "cpu" else FULL
    deadline = time.monotonic() + SECONDS
    dataset, work = folder / "Dataset901_Nodules", folder / "work"
    write_dataset(dataset, lambda random: nodules(random, scale.shape), LABELS, ISOTROPIC_SPACING, training=5, test=0)
    plan = plan_and_preprocess(dataset, work=work, trial=False, **scale.plan)
    checked = {name: plan.configurations[name] for name in CONFIGURATIONS}
    plan = plan.model_copy(update={"configurations": checked})
    planner = find_planner(PLANNER)
    assert isinstance(planner, MeasuresSteps)
    say(f"Comparing the networks on {device} with the CPU")
    sections = [_section("Networks against the CPU in fp32", partial(networks, plan, device))]
    say("Timing training steps, and comparing their computed memory with the measured one")
    sections.append(_section("Memory of a training step", partial(memory, plan, device, planner)))
    of_steps = _section("Training step, data on the device", partial(steps, plan, device, planner))
    sections.append(of_steps)
    say("Timing 3D depthwise convolutions and their alternatives")
    sections.append(
        _section("3D depthwise convolutions, forward and backward, batch 2", partial(depthwise, device, scale))
    )
    resident = {str(row["network"]): row["ms per step"] for row in of_steps.rows if row["default"] == "yes"}
    with_loader = partial(training, dataset, work, plan, device, scale, resident)
    sections.append(_section("Training with the loader", with_loader))
    of_volume = partial(prediction, work / dataset.name, dataset, plan, device)
    sections.append(_section("Prediction of one volume, reading and resampling included", of_volume))
    if scale.compiling:
        say("Timing compiled training steps")
        of_compiled = partial(compiled_steps, plan, device, planner, limit=scale.compiling, deadline=deadline)
        compiled = _section("", of_compiled)
        of_steps.rows += compiled.rows
        of_steps.note = f"{of_steps.note} {compiled.note}".strip()
    else:
        of_steps.note = f"{of_steps.note} torch.compile is not tried on a CPU.".strip()
    return sections


def _section(title: str, measure: Callable[[], tuple[list[Row], str]]) -> Section:
    """Return a table; if it cannot be measured, it is empty and says why, because the others can still be useful."""
    try:
        return Section(title, *measure())
    except Interrupted:
        raise
    except Exception as error:  # whatever a device does not support
        return Section(title, [], f"Failed: {_said(error)}")


def _said(error: Exception) -> str:
    """Return the type of an error and the first line of its message."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def networks(plan: Plan, device: torch.device) -> tuple[list[Row], str]:
    """Compare logits and gradients of every network of a plan with those of the CPU in fp32."""
    rows: list[Row] = []
    for name, configuration in plan.configurations.items():
        torch.manual_seed(0)
        network = build_network(plan.network_plan(configuration), None).eval()
        patch = [min(side, CHECKED_SIDE) for side in configuration.patch_size]
        image = torch.randn(2, network.plan.in_channels, *patch)
        target = torch.randint(network.plan.num_outputs, (2, *patch))
        expected = _gradients(network, image, target, devices.CPU, "fp32")
        for precision in TYPES:
            try:
                found = _gradients(network, image, target, device, precision)
            except RuntimeError as error:  # torch lacks an operation for the device in this precision
                rows.append(_agreement(name, precision, None, str(error).partition("\n")[0]))
                continue
            rows.append(_agreement(name, precision, [_relative(a, b) for a, b in zip(found, expected, strict=True)]))
        network.to("cpu")
    return rows, "Relative error (L2 norm) of logits and gradients in evaluation mode, with random weights and data."


def _agreement(network: str, precision: str, errors: list[float] | None, failure: str = "") -> Row:
    logits, gradients = errors or (None, None)
    agrees = errors is not None and max(errors) <= TOLERANCE[precision]  # False for NaN
    return {
        "network": network,
        "precision": precision,
        "error of logits": logits,
        "error of gradients": gradients,
        "tolerance": TOLERANCE[precision],
        "agrees": "yes" if agrees else f"no {failure}".strip(),
    }


def _gradients(
    network: nn.Module, image: Tensor, target: Tensor, device: torch.device, precision: str
) -> tuple[Tensor, Tensor]:
    """Return logits, and the gradients of all parameters, on the CPU in fp64."""
    network.to(device).zero_grad(set_to_none=True)
    half = precision != "fp32"
    with torch.autocast(device.type, dtype=TYPES[precision] if half else torch.bfloat16, enabled=half):
        logits = network(image.to(device).contiguous(memory_format=devices.memory_format_for(image.ndim - 2)))
    (functional.cross_entropy(logits.float(), target.to(device)) * LOSS_SCALE).backward()  # type: ignore[no-untyped-call]
    gradients = [p.grad.flatten() for p in network.parameters() if p.grad is not None]
    return logits.detach().cpu().double(), torch.cat(gradients).cpu().double()


def _relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def memory(plan: Plan, device: torch.device, planner: MeasuresSteps) -> tuple[list[Row], str]:
    """Compare computed with measured memory, for the planned size and smaller ones."""
    rows: list[Row] = []
    for configuration in plan.configurations.values():
        for size in _sizes(configuration):
            cost = planner.measure_step(plan, size, str(device), mixed=devices.BACKENDS[device.type].half)
            measured = cost.measured_bytes
            rows.append(
                {
                    "network": size.name,
                    "patch": by_axis(size.patch_size),
                    "batch": size.batch_size,
                    "computed GB": cost.computed_bytes / GIGABYTE,
                    "measured GB": None if measured is None else measured / GIGABYTE,
                    "computed / measured": None if measured is None else cost.computed_bytes / measured,
                }
            )
    note = "The goal is a ratio within 10 % of 1. torch measures the memory of CUDA, ROCm and Intel GPUs only."
    return rows, note


def _sizes(configuration: Configuration) -> Iterator[Configuration]:
    """Yield a configuration unchanged, with half the batch size, and with half the patch size."""
    yield configuration
    if configuration.batch_size >= 4:
        yield configuration.model_copy(update={"batch_size": configuration.batch_size // 2})
    if min(configuration.patch_size) >= CHECKED_SIDE:
        yield configuration.model_copy(update={"patch_size": tuple(side // 2 for side in configuration.patch_size)})


def steps(plan: Plan, device: torch.device, planner: MeasuresSteps) -> tuple[list[Row], str]:
    """Time training steps whose data are on the device, in both precisions and memory formats."""
    half = devices.BACKENDS[device.type].half
    rows = [
        _timed(plan, configuration, device, planner, mixed=mixed, channels_last=channels_last)
        for configuration in plan.configurations.values()
        for mixed in ((True, False) if half else (False,))
        for channels_last in (True, False)
    ]
    return rows, ""


def compiled_steps(
    plan: Plan, device: torch.device, planner: MeasuresSteps, *, limit: float, deadline: float
) -> tuple[list[Row], str]:
    """Time the same steps compiled, in the default precision and memory format.

    Args:
        plan: Plan of the networks.
        device: Device to measure.
        planner: Planner that runs the steps.
        limit: Seconds that each network may take.
        deadline: Time at which all checks should end; those before leave more or less of it.
    """
    rows: list[Row] = []
    devices.reset_peak_memory(device)  # another process compiles, and needs what this one has kept
    half = devices.BACKENDS[device.type].half
    networks = list(plan.configurations.values())
    for number, configuration in enumerate(networks):
        share = (deadline - time.monotonic()) / (len(networks) - number)
        if share < WORTH_TRYING:
            left = listed([each.name for each in networks[number:]])
            minutes = SECONDS / 60
            return rows, f"torch.compile was not tried for {left}: little of the {minutes:.0f} minutes was left."
        rows.append(_timed(plan, configuration, device, planner, mixed=half, compiling=min(limit, share)))
    return rows, ""


def _timed(
    plan: Plan,
    configuration: Configuration,
    device: torch.device,
    planner: MeasuresSteps,
    *,
    mixed: bool,
    channels_last: bool = True,
    compiling: float = 0,
) -> Row:
    """Return the row of a training step; without a time, it says why."""
    seconds, compiled = None, "yes" if compiling else "no"
    try:
        seconds = planner.measure_step(
            plan, configuration, str(device), mixed=mixed, channels_last=channels_last, compiling=compiling
        ).seconds
    except UserError as error:
        compiled = str(error).partition(": ")[2]
    except Exception as error:  # such as those of compilers
        compiled = f"failed: {type(error).__name__}: {str(error).strip().rpartition(chr(10))[2]}"
    is_default = mixed is devices.BACKENDS[device.type].half and channels_last and not compiling
    return {
        "network": configuration.name,
        "precision": devices.precision_name(device) if mixed else "fp32",
        "channels last": "yes" if channels_last else "no",
        "compiled": compiled,
        "ms per step": None if seconds is None else 1e3 * seconds,
        "default": "yes" if is_default else "no",
    }


def depthwise(device: torch.device, scale: Scale) -> tuple[list[Row], str]:
    """Time the forward and backward pass of 3D depthwise convolutions, and of grouped and dense alternatives."""
    rows: list[Row] = []
    for channels, side, kernel, stride in scale.layers:
        x = torch.randn(2, channels, side, side, side, device=device)
        x = x.contiguous(memory_format=torch.channels_last_3d).requires_grad_()
        row: Row = {"channels, input, kernel, stride": f"{channels}, {side}³, {kernel}, {stride}"}
        for name, kind, groups in (
            ("depthwise", DepthwiseConv3d, channels),
            ("conv3d", nn.Conv3d, channels),
            ("8 per group", nn.Conv3d, channels // 8),
            ("dense", nn.Conv3d, 1),
        ):
            layer = kind(channels, channels, kernel, stride, kernel // 2, groups=groups, bias=False, device=device)
            row[f"{name} (ms)"] = _fastest(partial(_both_ways, layer, x, device), device, scale.repeats)
        rows.append(row)
    note = "depthwise: as in DX-Net. conv3d: the same convolution by PyTorch's own function."
    return rows, note


def _both_ways(layer: nn.Module, x: Tensor, device: torch.device) -> None:
    with devices.autocast_for(device):
        y = layer(x)
    y.sum().backward()


def _fastest(run: Callable[[], None], device: torch.device, repeats: int) -> float:
    """Return the time of the fastest run in ms; the first run is not counted."""
    times = []
    for _ in range(repeats + 1):
        devices.synchronize(device)
        started = time.monotonic()
        run()
        devices.synchronize(device)
        times.append(1e3 * (time.monotonic() - started))
    return min(times[1:])


def training(
    dataset: Path, work: Path, plan: Plan, device: torch.device, scale: Scale, resident: Mapping[str, Any]
) -> tuple[list[Row], str]:
    """Train every configuration for two epochs, and compare the second with steps whose data are on the device."""
    variants = [(1, "workers")]
    if devices.BACKENDS[device.type].asynchronous:  # elsewhere, the other way is not meant to be used
        variants.append((1, str(device)))
    several = devices.count(device.type) >= 2 and device.type == "cuda"
    if several:
        variants.append((2, "workers"))
    rows: list[Row] = []
    # The folds that are used for prediction first.
    for fold, (number, where) in enumerate(variants):
        for name, configuration in plan.configurations.items():
            say(f"Training {name} with its loader on {number} device(s), augmentation on {where}")
            row: Row = {"network": name, "devices": number, "augmentation on": where, "ms per step": None}
            row |= {"share waiting for data": None, "speed / data on the device": None}
            rows.append(row)
            settings = {**scale.settings, "validation_batches": 1, "slices_first": False}
            settings |= {"augmentation": "strong", "augment_on_gpu": where != "workers"}  # many patches are resampled
            try:
                train(
                    dataset,
                    work=work,
                    config=name,
                    fold=fold,
                    weights="random",
                    epochs=2,
                    set=settings,
                    device=str(device) if number == 1 else "cuda",
                    devices=number,
                )
            except Interrupted:
                raise
            except Exception as error:  # the other ways may still work
                row["augmentation on"] = f"{where}: failed: {_said(error)}"
                continue
            epoch = read_history(Workspace.of(dataset.name, work).fold(name, fold).history)[-1]
            ms = 1e3 * epoch["seconds"] * configuration.batch_size / epoch["patches"]
            row["ms per step"] = ms
            row["share waiting for data"] = epoch["waited_for_data"] / epoch["seconds"]
            if isinstance(alone := resident.get(name), float):
                row["speed / data on the device"] = alone / ms
    note = "The goal is at least 85 % of the speed with the data on the device."
    return rows, note if several else f"{note} One device: DDP was not run."


def prediction(results: Path, dataset: Path, plan: Plan, device: torch.device) -> tuple[list[Row], str]:
    """Segment one volume with each network: with and without mirroring, and moved to the device for every batch.

    A network with nnU-Net's layers for the same patches takes the place of ours in the same sliding window.
    """
    rows: list[Row] = []
    image = next((dataset / "imagesTr").iterdir())
    for configuration in plan.configurations.values():
        try:
            rows += _speeds(results, plan, configuration, device, image)
        except Interrupted:
            raise
        except Exception as error:  # the other network may still work
            row: Row = {"network": configuration.name, "mirroring": "-", "on the device": f"failed: {_said(error)}"}
            rows.append({**row, "voxels per second": None})
    return rows, (
        "Networks for which a GPU has no room are moved there for each batch. nnU-Net's: a network with the layers of "
        "its PlainConvUNet and the strides and kernels of our plan, in PyTorch's default memory format."
    )


def _speeds(
    results: Path, plan: Plan, configuration: Configuration, device: torch.device, image: Path
) -> Iterator[Row]:
    """Yield the rows of a network, and of one with nnU-Net's layers."""
    name = configuration.name
    fields = plan.network_plan(configuration).model_dump() | {"kind": "plain", "encoder": NO_ENCODER}
    nnunet = build_network(NetworkPlan.model_validate(fields), None).eval().to(device)
    for mirroring in (True, False):
        predictor = Predictor.load(results, fold=0, config=name, device=str(device), mirroring=mirroring)
        (model,) = predictor.models
        (network,) = model.networks
        yield _speed(name, predictor, image)
        model.networks = [nnunet]
        yield _speed(NNUNETS + name, predictor, image)
        if not mirroring:
            model.networks = [Visiting(network.to(devices.CPU), device)]
            yield {**_speed(name, predictor, image), "on the device": "for each batch"}


def _speed(name: str, predictor: Predictor, image: Path) -> Row:
    """Return the row of a prediction, timed when it is repeated; without a speed if the memory is too small."""
    speed = None
    with suppress(torch.OutOfMemoryError):
        predictor(image)
        started = time.monotonic()
        voxels = predictor(image).label.size
        speed = voxels / (time.monotonic() - started)
    return {
        "network": name,
        "mirroring": "yes" if predictor.mirroring else "no",
        "on the device": "throughout",
        "voxels per second": speed,
    }
