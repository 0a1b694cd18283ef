"""The planner: decides between 2D and 3D, and sizes the networks to the cases and to the memory."""

from dataclasses import dataclass
from typing import Literal

from autocrossdim.commands.plugins import StepCost
from autocrossdim.data.annotation_notes import annotation_notes
from autocrossdim.data.dataset import Dataset
from autocrossdim.preprocessing.fingerprint import common_orientation, reoriented
from autocrossdim.records.fingerprint import Fingerprint
from autocrossdim.records.plan import Configuration, Decision, Plan
from autocrossdim.records.plan_options import PlanOptions
from autocrossdim.system.errors import UserError
from autocrossdim.system.text import by_axis
from planners.configurations import plan_configurations
from planners.decision import choose, mixed_note
from planners.device import memory_budget, precision_bits
from planners.memory import step_memory
from planners.mirroring import choose_mirroring, plan_axis_names
from planners.normalization import choose_normalization, normalization_note
from planners.options import check_options
from planners.sizing import NOT_PRETRAINED, Sizer
from planners.spacing import CaseSizes, axis_order
from planners.trial import Trial, attempt, run_here


@dataclass(frozen=True)
class AutoPlanner:
    """Plans `omnia` (2D) and, for volumes, `dx` (3D), and chooses one of them by the anisotropy of the data.

    Attributes:
        configuration: Configuration to train instead of the chosen one. `ds` (DS-Net) and `unet` (a plain U-Net, 2D or
            3D as the configuration that would have been chosen) are only planned on request.
    """

    configuration: Literal["omnia", "dx", "ds", "unet"] | None = None

    def check_options(self, options: PlanOptions) -> None:
        """Check the options that do not depend on the dataset.

        Raises:
            UserError: The encoder is unknown or not supported, or no network can be trained on the patch size.
        """
        check_options(options)

    def plan(self, dataset: Dataset, fingerprint: Fingerprint, options: PlanOptions) -> Plan:
        """Return the plan.

        Raises:
            UserError: An option is invalid, a 3D network was requested for 2D images, or nothing fits the memory
                budget.
        """
        check_options(options)
        dims: Literal[2, 3] = 2 if fingerprint.dims == 2 else 3
        if dims == 2 and self.configuration in ("dx", "ds"):
            raise UserError(
                f"{dataset.name} contains 2D images, but --planner {self.configuration} plans a 3D network. Use "
                "--planner omnia."
            )
        orientation = None if options.keep_orientation else common_orientation(fingerprint)
        fingerprint = reoriented(fingerprint, orientation)
        order = axis_order(fingerprint)
        sizes = CaseSizes.of(fingerprint, order)
        mirroring = choose_mirroring(
            fingerprint,
            dataset.labels,
            transpose=order,
            axis_names=plan_axis_names(_shared_orientation(fingerprint), order),
            dims=dims,
            sides=dataset.sides,
            chosen=dataset.mirror_axes,
        )
        budget, budget_reason = memory_budget(options)
        bits = precision_bits(options)
        sizer = Sizer(
            channels=len(dataset.channel_names),
            labels=dataset.labels,
            options=options if dims == 3 else options.model_copy(update={"slices": 1}),
            mixed=bits == 16,
            budget_bytes=budget,
        )
        choice = choose(sizes, options.threshold, dims)
        unet_dims: Literal[2, 3] = 2 if choice.configuration == "omnia" else 3
        configurations = plan_configurations(
            sizer,
            sizes,
            dims,
            mirror_axes=mirroring.axes,
            with_ds=self.configuration == "ds",
            unet_dims=unet_dims if self.configuration == "unet" else None,
        )
        chosen = self.configuration or choice.configuration
        reasons = [*choice.reasons]
        if chosen != choice.configuration:
            reasons.append(f"--planner {chosen} was requested, so {chosen} is used instead of {choice.configuration}.")
        reasons += [_size_reason(configurations[chosen]), budget_reason]
        normalization = choose_normalization(dataset, fingerprint)
        notes = (
            mixed_note(sizes, options.threshold) if dims == 3 else None,
            _low_resolution_note(configurations, chosen),
            normalization_note(normalization),
            _images_note(configurations[chosen]) if dims == 2 else None,
            *mirroring.reasons,
            *annotation_notes(dataset, fingerprint),
            "--slices 3 does not apply to 2D images." if dims == 2 and options.slices == 3 else None,
            _unused_note(options) if self.configuration == "unet" else None,
        )
        return Plan(
            dataset=dataset.name,
            dims=dims,
            channel_names=dataset.channel_names,
            labels=dataset.labels,
            file_ending=dataset.file_ending,
            orientation=orientation,
            transpose=order,
            normalization=normalization,
            decision=Decision(
                anisotropy=choice.anisotropy,
                threshold=options.threshold,
                configuration=chosen,
                alternatives=tuple(name for name in configurations if name != chosen),
                reasons=tuple(reasons),
            ),
            configurations=configurations,
            precision_bits=bits,
            notes=tuple(note for note in notes if note),
            overrides=options.overrides(self.configuration),
        )

    def measure_step(
        self,
        plan: Plan,
        configuration: Configuration,
        device: str,
        *,
        mixed: bool = True,
        channels_last: bool = True,
        compiling: float = 0,
    ) -> StepCost:
        """Run a few training steps of a configuration; see `autocrossdim.commands.plugins.MeasuresSteps`.

        Raises:
            UserError: The device is not available, has too little memory, or compiling took too long.
        """
        trial = Trial(
            network=plan.network_plan(configuration),
            patch=configuration.patch_size,
            batch=configuration.batch_size,
            mixed=mixed,
            regions=plan.labels.has_regions,
            device=device,
            channels_last=channels_last,
            compiled=compiling > 0,
        )
        # Compiling cannot be interrupted in this process.
        outcome = attempt(trial, seconds=compiling) if compiling else run_here(trial)
        if not outcome.fits:
            raise UserError(f"--device {device}: too little memory for a step of {configuration.name}.")
        if outcome.seconds is None:
            raise UserError(f"--device {device}: torch.compile took more than {compiling:g} s.")
        memory = step_memory(trial.network, mixed=mixed, regions=trial.regions)
        return StepCost(outcome.seconds, memory.training(trial.patch, trial.batch), outcome.peak_bytes)


def _shared_orientation(fingerprint: Fingerprint) -> str | None:
    """Return the orientation of all images; None if it is unknown or, as images are kept as stored, differs."""
    orientations = {case.orientation for case in fingerprint.cases}
    return orientations.pop() if len(orientations) == 1 else None


def _size_reason(configuration: Configuration) -> str:
    shape = configuration.median_shape[-configuration.dims :]
    covers = all(side >= n for side, n in zip(configuration.patch_size, shape, strict=True))
    patch, typical = (by_axis(sides) for sides in (configuration.patch_size, shape))
    unit = "pixels" if configuration.dims == 2 else "voxels"
    image = "slice" if configuration.dims == 2 and configuration.median_shape[0] > 1 else "image"
    return (
        f"Patch size {patch} {unit}, which covers {'' if covers else 'part of '}a typical {image} ({typical}); batch "
        f"size {configuration.batch_size}."
    )


def _images_note(configuration: Configuration) -> str:
    share = f"{100 * configuration.image_statistics:g} %"
    adapts = f", and batch norms use {share} of each image's own statistics" if configuration.image_statistics else ""
    return (
        f"Augmentation is {configuration.augmentation}{adapts}, because 2D images differ more in size, angle and "
        "contrast than volumes."
    )


def _unused_note(options: PlanOptions) -> str | None:
    """Return a note about options that have no effect on a network without a pretrained encoder."""
    unused = [
        f"--{name}" for name in NOT_PRETRAINED if getattr(options, name) != PlanOptions.model_fields[name].default
    ]
    if not unused:
        return None
    verb = "does" if len(unused) == 1 else "do"
    return f"{' and '.join(unused)} {verb} not apply to unet, which has no pretrained encoder."


def _low_resolution_note(configurations: dict[str, Configuration], chosen: str) -> str | None:
    if "dx_lowres" not in configurations:
        return None
    return (
        "A patch of dx covers less than a quarter of a typical image. dx_lowres covers more of it at a coarser "
        "resolution, and dx_cascade refines the segmentation by dx_lowres."
        + (" `run` also trains these, and compares all." if chosen == "dx" else "")
    )


auto = AutoPlanner()
omnia = AutoPlanner("omnia")
dx = AutoPlanner("dx")
ds = AutoPlanner("ds")
unet = AutoPlanner("unet")
