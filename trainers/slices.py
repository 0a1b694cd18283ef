"""From slices to volumes: the 2D counterpart of DX-Net is trained first, and DX-Net starts from all of its weights.

Measured with version 0.1, which mirrored every axis, on Hippocampus with 8 training cases and the same number of 3D
steps (docs/explanation/transfer.md): DX-Net reached a Dice of 0.83 when it started from a 2D counterpart that had
started from ImageNet weights, 0.78 from the inflated ImageNet encoder alone, and 0.75 from random weights. In short
runs of the present version, no gain has been shown.
"""

from dataclasses import replace
from math import prod

from autocrossdim.models.source import is_model
from autocrossdim.records.plan import Configuration, Plan
from trainers.run import Run
from trainers.settings import Settings

SUFFIX = "_slices"  # of the name of the 2D counterpart
EPOCHS = 2  # of the 2D counterpart per epoch of DX-Net
VOXELS = 0.15  # of a batch of DX-Net make a batch of slices; with twice the epochs, a fifth of the training time
TIME = 0.2  # of the training time, where it is limited
RATE = 0.5  # of the learning rate of DX-Net, which gives that of Omnia-Net


def starts_on_slices(run: Run) -> bool:
    """Return whether the 2D counterpart is trained first: for DX-Net that starts from encoder or random weights.

    The network of the paper starts from the encoder alone, so that its comparisons can be reproduced.
    """
    configuration = run.configuration
    is_dx = configuration.dims == 3 and configuration.kind == "unet" and configuration.network == "default"
    return run.settings.slices_first and is_dx and not is_model(run.start)


def is_on_slices(run: Run) -> bool:
    """Return whether a run trains the 2D counterpart that DX-Net will start from."""
    return run.configuration.name.endswith(SUFFIX)


def follows_slices(run: Run) -> bool:
    """Return whether a run starts from the 2D counterpart that was trained for it."""
    return run.start == str(run.folder.slices.latest)


def run_on_slices(run: Run) -> Run:
    """Return the run that trains the 2D counterpart, with its share of the epochs and the time."""
    configuration, settings = slices_of(run.configuration), run.settings
    changes = {
        "epochs": EPOCHS * settings.epochs,
        "learning_rate": None if settings.learning_rate is None else RATE * settings.learning_rate,
    }
    task = replace(
        run.task,
        plan=_with_configuration(run.task.plan, configuration),
        configuration=configuration,
        folder=run.folder.slices,
    )
    return replace(run, task=task, settings=_with_time(settings.model_copy(update=changes), TIME))


def run_on_volumes(run: Run) -> Run:
    """Return the run that trains DX-Net from its 2D counterpart, in the time that is left."""
    return replace(run, settings=_with_time(run.settings, 1 - TIME), start=str(run.folder.slices.latest))


def slices_of(configuration: Configuration) -> Configuration:
    """Return the 2D counterpart of a 3D configuration, for slices of the same patches."""
    patch = configuration.patch_size[1:]
    voxels = VOXELS * configuration.batch_size * prod(configuration.patch_size)
    return configuration.model_copy(
        update={
            "name": configuration.name + SUFFIX,
            "dims": 2,
            "spacing": configuration.spacing[1:],
            "patch_size": patch,
            "batch_size": max(configuration.batch_size, round(voxels / prod(patch))),
            "mirror_axes": tuple(axis - 1 for axis in configuration.mirrored if axis > 0),
            "learning_rate": RATE * configuration.learning_rate,
            "strides": tuple(stride[1:] for stride in configuration.strides),
            "kernel_sizes": tuple(kernel[1:] for kernel in configuration.kernel_sizes),
        }
    )


def _with_configuration(plan: Plan, configuration: Configuration) -> Plan:
    """Return the plan with one more configuration, so that the checkpoints of that configuration are complete."""
    return plan.model_copy(update={"configurations": {**plan.configurations, configuration.name: configuration}})


def _with_time(settings: Settings, share: float) -> Settings:
    if settings.max_seconds is None:
        return settings
    return settings.model_copy(update={"max_seconds": share * settings.max_seconds})
