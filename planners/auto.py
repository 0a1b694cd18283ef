"""The planner: looks at a fingerprint, decides between slices and volumes, and sizes both to the memory."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from autocrossdim.data.dataset import Dataset
from autocrossdim.errors import UserError
from autocrossdim.fingerprint import Fingerprint
from autocrossdim.plan import Configuration, Decision, Memory, Plan, PlanOptions
from autocrossdim.preprocessing.normalize import Normalization, scheme_for
from planners.device import memory_budget
from planners.sizing import Sizer
from planners.spacing import anisotropy, axis_order, resampled_shapes, target_spacing

DEFAULT_ENCODER = "efficientnet_b0"
CLOSE_CASE = (2.0, 4.0)  # between these ratios nothing published settles 2D against 3D
INSIDE_MASK_BELOW = 0.75  # share of voxels left by cropping under which z-scores look inside the mask (nnU-Net)


@dataclass(frozen=True)
class AutoPlanner:
    """Plans both candidates, `omnia` (2D) and `dx` (3D), and decides by anisotropy unless told which.

    Attributes:
        configuration: the configuration to train; None lets the data decide.
    """

    configuration: Literal["omnia", "dx"] | None = None

    def plan(self, dataset: Dataset, fingerprint: Fingerprint, options: PlanOptions) -> Plan:
        """Return the plan.

        Raises:
            UserError: 3D was asked for on 2D data, or nothing fits the memory budget.
        """
        if fingerprint.dims == 2 and self.configuration == "dx":
            raise UserError(f"{dataset.name} holds 2D images: `dx` needs volumes. Plan with `--planner omnia`.")
        order = axis_order(fingerprint)
        spacings = np.array([case.spacing for case in fingerprint.cases])[:, order]
        shapes = np.array([case.cropped_shape for case in fingerprint.cases])[:, order]
        budget, memory_reason = memory_budget(options)
        sizer = Sizer(
            channels=len(dataset.channel_names),
            num_outputs=dataset.labels.num_outputs,
            encoder=options.encoder or DEFAULT_ENCODER,
            network=options.network,
            budget_bytes=budget,
            patch_size=options.patch_size,
            batch_size=options.batch_size,
        )
        target = target_spacing(spacings, shapes)
        configurations = {"omnia": _configuration("omnia", sizer, spacings, shapes, target[1:])}
        if fingerprint.dims == 3:
            configurations["dx"] = _configuration("dx", sizer, spacings, shapes, target)
        return Plan(
            dataset=dataset.name,
            dims=fingerprint.dims,
            channel_names=dataset.channel_names,
            labels=dataset.labels,
            file_ending=dataset.file_ending,
            transpose=order,
            normalization=_normalization(dataset, fingerprint),
            decision=self._decide(fingerprint, spacings, options, configurations, memory_reason),
            configurations=configurations,
            overrides=_overrides(options, self.configuration),
        )

    def _decide(
        self,
        fingerprint: Fingerprint,
        spacings: np.ndarray,
        options: PlanOptions,
        configurations: dict[str, Configuration],
        memory_reason: str,
    ) -> Decision:
        if fingerprint.dims == 2:
            ratio, choice = 1.0, "omnia"
            reasons = ["The images are flat, so a 2D network (omnia) is the only choice."]
        else:
            spacing = np.median(spacings, axis=0)
            ratio = anisotropy(spacing)
            choice = "omnia" if ratio >= options.threshold else "dx"
            reasons = _spacing_reasons(spacing, ratio, options.threshold)
        if self.configuration is not None:
            if self.configuration != choice:
                reasons.append(f"You asked for {self.configuration} instead of {choice}.")
            choice = self.configuration
        chosen = configurations[choice]
        reasons += [_size_reason(chosen), memory_reason]
        alternatives = tuple(name for name in configurations if name != choice)
        if fingerprint.dims == 3 and CLOSE_CASE[0] <= ratio <= CLOSE_CASE[1]:
            reasons.append(
                f"A ratio between {CLOSE_CASE[0]:g} and {CLOSE_CASE[1]:g} is a close case: train the other one too "
                f"(`autocrossdim train DATASET --config {alternatives[0]}`) and let cross-validation choose."
            )
        return Decision(
            anisotropy=ratio,
            threshold=options.threshold,
            configuration=choice,
            alternatives=alternatives,
            reasons=tuple(reasons),
        )


def _configuration(
    name: str, sizer: Sizer, spacings: np.ndarray, shapes: np.ndarray, target: tuple[float, ...]
) -> Configuration:
    """Size a network over as many axes as `target` has (mm; in 2D the slice axis is left as it is)."""
    resampled = resampled_shapes(spacings, shapes, target)
    z, y, x = (round(float(n)) for n in np.median(resampled, axis=0))
    size = sizer.size((z, y, x)[-len(target) :], target, int(resampled.prod(axis=1).sum()))
    return Configuration(
        name=name,
        dims=len(target),
        spacing=target,
        median_shape=(z, y, x),
        patch_size=size.patch,
        batch_size=size.batch,
        encoder=sizer.encoder,
        network=sizer.network,
        strides=size.topology.strides,
        kernel_sizes=size.topology.kernel_sizes,
        memory=Memory(budget_bytes=sizer.budget_bytes, estimated_bytes=size.estimated_bytes),
    )


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


def _spacing_reasons(spacing: np.ndarray, ratio: float, threshold: float) -> list[str]:
    slice_mm, in_plane_mm = float(spacing.max()), float(spacing.min())
    if ratio >= threshold:
        return [
            f"Slices are {slice_mm:.3g} mm apart while pixels are {in_plane_mm:.3g} mm wide, {ratio:.2g} times finer.",
            f"From a ratio of {threshold:g} on, neighbouring slices say little about each other, so a 2D network "
            "(omnia) looks at one slice at a time.",
        ]
    return [
        f"Voxels are nearly cubes: {slice_mm:.3g} mm along the coarsest axis, {in_plane_mm:.3g} mm along the finest, "
        f"a ratio of {ratio:.2g}.",
        f"Below a ratio of {threshold:g}, neighbouring slices show the same anatomy, so a 3D network (dx) looks at "
        "whole volumes.",
    ]


def _size_reason(configuration: Configuration) -> str:
    patch = " x ".join(map(str, configuration.patch_size))
    shape = configuration.median_shape[-configuration.dims :]
    share = "the whole" if all(p >= n for p, n in zip(configuration.patch_size, shape, strict=True)) else "part of a"
    typical = " x ".join(map(str, shape))
    return (
        f"The network sees {patch} voxels at a time, {share} typical image ({typical}), "
        f"{configuration.batch_size} of them a step."
    )


def _overrides(options: PlanOptions, configuration: str | None) -> dict[str, str]:
    chosen = {
        name: str(getattr(options, name))
        for name in options.model_fields_set
        if getattr(options, name) is not None and getattr(options, name) != PlanOptions.model_fields[name].default
    }
    return chosen | ({"planner": configuration} if configuration else {})


auto = AutoPlanner()
omnia = AutoPlanner("omnia")
dx = AutoPlanner("dx")
