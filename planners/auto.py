"""The planner: looks at a fingerprint, decides between slices and volumes, and sizes both to the memory."""

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from autocrossdim.data.dataset import Dataset
from autocrossdim.inference.sliding_window import tile_starts
from autocrossdim.preprocessing.normalize import scheme_for
from autocrossdim.records.fingerprint import Fingerprint
from autocrossdim.records.network import NetworkChoices
from autocrossdim.records.normalization import Normalization
from autocrossdim.records.plan import STEPS_PER_EPOCH, Configuration, Cost, Decision, Memory, Plan, PlanOptions
from autocrossdim.system.errors import UserError
from planners import decision
from planners.device import memory_budget, precision_bits
from planners.sizing import Size, Sizer
from planners.spacing import axis_order, resampled_shapes, target_spacing

LEARNING_RATES = {2: 1e-3, 3: 2e-3}
"""Peak learning rate by number of axes: the authors' for Omnia-Net, twice that for DX-Net.

Measured on one fold of Hippocampus, 200 steps from random weights: Dice 0.805, 0.819 and 0.810 at 1e-3, 2e-3 and 4e-3
on the validation cases of the fold, 0.794, 0.797 and 0.798 on 16 other cases."""
INSIDE_MASK_BELOW = 0.75  # share of voxels left by cropping under which z-scores look inside the mask (nnU-Net)
SMALL_PATCH = 0.25  # of the median shape's voxels, under which a coarser configuration is planned besides (nnU-Net)


@dataclass(frozen=True)
class AutoPlanner:
    """Plans both candidates, `omnia` (2D) and `dx` (3D), and decides by anisotropy unless told which.

    Attributes:
        configuration: the configuration to train; None lets the data decide. `ds` (DS-Net) is only planned when it
            is asked for.
    """

    configuration: Literal["omnia", "dx", "ds"] | None = None

    def plan(self, dataset: Dataset, fingerprint: Fingerprint, options: PlanOptions) -> Plan:
        """Return the plan.

        Raises:
            UserError: 3D was asked for on 2D data, or nothing fits the memory budget.
        """
        if fingerprint.dims == 2 and self.configuration in ("dx", "ds"):
            raise UserError(
                f"{dataset.name} holds 2D images: `{self.configuration}` needs volumes. Plan with `--planner omnia`."
            )
        order = axis_order(fingerprint)
        spacings = np.array([case.spacing for case in fingerprint.cases])[:, order]
        shapes = np.array([case.cropped_shape for case in fingerprint.cases])[:, order]
        budget, memory_reason = memory_budget(options)
        if fingerprint.dims == 2:
            options = options.model_copy(update={"slices": 1})
        sizer = Sizer(
            channels=len(dataset.channel_names),
            num_outputs=dataset.labels.num_outputs,
            options=options,
            mixed=precision_bits(options) == 16,
            budget_bytes=budget,
        )
        target = target_spacing(spacings, shapes)
        configurations = _configurations(sizer, spacings, shapes, target, fingerprint.dims)
        if self.configuration == "ds":
            configurations["ds"] = _configuration("ds", replace(sizer, kind="ds"), spacings, shapes, target)
        if fingerprint.dims == 3:
            choice = decision.choose(spacings, shapes, options.threshold)
        else:
            choice = decision.Choice("omnia", 1.0, ["The images are flat, so a 2D network (omnia) is the only choice."])
        chosen, reasons = choice.configuration, list(choice.reasons)
        if self.configuration is not None and self.configuration != chosen:
            reasons.append(f"You asked for {self.configuration} instead of {chosen}.")
            chosen = self.configuration
        reasons += [_size_reason(configurations[chosen]), memory_reason]
        return Plan(
            dataset=dataset.name,
            dims=3 if fingerprint.dims == 3 else 2,
            channel_names=dataset.channel_names,
            labels=dataset.labels,
            file_ending=dataset.file_ending,
            transpose=order,
            normalization=_normalization(dataset, fingerprint),
            decision=Decision(
                anisotropy=choice.anisotropy,
                threshold=options.threshold,
                configuration=chosen,
                alternatives=tuple(name for name in configurations if name != chosen),
                reasons=tuple(reasons),
            ),
            configurations=configurations,
            precision_bits=16 if sizer.mixed else 32,
            notes=_notes(dataset, spacings, configurations, options.threshold),
            overrides=_overrides(options, self.configuration),
        )


def _configurations(
    sizer: Sizer, spacings: np.ndarray, shapes: np.ndarray, target: tuple[float, float, float], dims: int
) -> dict[str, Configuration]:
    """Return both candidates and, where a patch shows little of a volume, a coarser one."""
    made = {"omnia": _configuration("omnia", sizer, spacings, shapes, target[1:])}
    if dims == 2:
        return made
    made["dx"] = dx = _configuration("dx", sizer, spacings, shapes, target)
    seen = float(np.prod(dx.patch_size) / np.prod(dx.median_shape))
    if seen < SMALL_PATCH:
        # Coarser by the factor at which the same patch would show a quarter.
        factor = float(np.cbrt(SMALL_PATCH / seen))
        coarser = (target[0] * factor, target[1] * factor, target[2] * factor)
        made["dx_lowres"] = _configuration(
            "dx_lowres",
            replace(sizer, options=sizer.options.model_copy(update={"patch_size": None})),
            spacings,
            shapes,
            coarser,
        )
    return made


def _configuration(
    name: str, sizer: Sizer, spacings: np.ndarray, shapes: np.ndarray, target: tuple[float, ...]
) -> Configuration:
    """Size a network over as many axes as `target` has (mm; in 2D the slice axis is left as it is)."""
    resampled = resampled_shapes(spacings, shapes, target)
    z, y, x = (round(float(n)) for n in np.median(resampled, axis=0))
    dims: Literal[2, 3] = 3 if len(target) == 3 else 2
    size, outcome = sizer.size_that_runs((z, y, x)[-dims:], target, int(resampled.prod(axis=1).sum()))
    choices = {choice: getattr(sizer.options, choice) for choice in NetworkChoices.model_fields}
    return Configuration(
        name=name,
        dims=dims,
        spacing=target,
        median_shape=(z, y, x),
        patch_size=size.patch,
        batch_size=size.batch,
        **choices | sizer.adjusted(dims),
        kind=sizer.kind,
        strides=size.topology.strides,
        kernel_sizes=size.topology.kernel_sizes,
        learning_rate=LEARNING_RATES[dims],
        memory=Memory(
            budget_bytes=sizer.budget_bytes,
            estimated_bytes=size.memory.training(size.patch, size.batch),
            measured_bytes=outcome.peak_bytes,
            inference_bytes=size.memory.inference(size.patch, size.batch),
        ),
        cost=Cost(
            multiply_adds_per_case=_multiply_adds(size, (z, y, x)),
            seconds_per_epoch=None if outcome.seconds is None else outcome.seconds * STEPS_PER_EPOCH,
        ),
    )


def _multiply_adds(size: Size, shape: tuple[int, int, int]) -> int:
    """Multiply-adds of all tiles of a case of `shape` (Z, Y, X)."""
    tiles = shape[0] if len(size.patch) == 2 else 1
    for voxels, patch in zip(shape[-len(size.patch) :], size.patch, strict=True):
        tiles *= len(tile_starts(voxels, patch))
    return tiles * size.memory.multiply_adds(size.patch)


def _normalization(dataset: Dataset, fingerprint: Fingerprint) -> tuple[Normalization, ...]:
    inside_mask = fingerprint.relative_size_after_cropping() < INSIDE_MASK_BELOW
    entries = []
    for name, seen in zip(dataset.channel_names, fingerprint.intensities, strict=True):
        scheme = scheme_for(name)
        entries.append(
            Normalization(
                scheme=scheme,
                inside_mask=inside_mask and scheme == "zscore",
                mean=seen.mean,
                std=seen.std,
                lower=seen.percentile_00_5,
                upper=seen.percentile_99_5,
            )
        )
    return tuple(entries)


def _size_reason(configuration: Configuration) -> str:
    patch = " x ".join(map(str, configuration.patch_size))
    shape = configuration.median_shape[-configuration.dims :]
    share = "the whole" if all(p >= n for p, n in zip(configuration.patch_size, shape, strict=True)) else "part of a"
    typical = " x ".join(map(str, shape))
    return (
        f"The network sees {patch} voxels at a time, {share} typical image ({typical}), "
        f"{configuration.batch_size} of them a step."
    )


def _notes(
    dataset: Dataset, spacings: np.ndarray, configurations: dict[str, Configuration], threshold: float
) -> tuple[str, ...]:
    notes = [decision.mixed_note(spacings, threshold)]
    if "dx_lowres" in configurations:
        notes.append(
            "A patch of dx shows less than a quarter of a typical volume: dx_lowres sees more of it, more coarsely; "
            "train it besides and ensemble the two."
        )
    schemes = [scheme_for(name) for name in dataset.channel_names]
    if any(scheme in ("nonorm", "rescale_to_0_1", "rgb_to_0_1") for scheme in schemes):
        notes.append(
            "Pretrained weights expect channels of mean 0 and deviation 1; the channel names ask for something else "
            f"({', '.join(sorted(set(schemes)))}), so batch normalisation has more to adapt to."
        )
    else:
        notes.append("Channels have mean 0 and deviation 1, which is what pretrained weights expect.")
    return tuple(note for note in notes if note)


def _overrides(options: PlanOptions, configuration: str | None) -> dict[str, str]:
    chosen: dict[str, Any] = {
        name: value
        for name, value in options.model_dump().items()
        if value != PlanOptions.model_fields[name].default and name != "trial"
    }
    return {name: str(value) for name, value in chosen.items()} | ({"planner": configuration} if configuration else {})


auto = AutoPlanner()
omnia = AutoPlanner("omnia")
dx = AutoPlanner("dx")
ds = AutoPlanner("ds")
