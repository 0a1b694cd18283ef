"""The way from slices to volumes: DX-Net's 2D twin learns first, and DX-Net starts from all of it.

Measured on Hippocampus (docs/transfer.md): with 8 cases and as many 3D steps, DX-Net from a twin that had begun with
ImageNet weights reached a Dice of 0.83, from the inflated ImageNet encoder alone 0.78, at random 0.75.
"""

from math import prod

from autocrossdim.records.plan import Configuration, Plan
from trainers.settings import Settings
from trainers.start import is_model

SUFFIX = "_slices"  # of the twin's name
EPOCHS = 2  # of the twin for each of DX-Net's
VOXELS = 0.15  # of those in a step of DX-Net are in one of the twin: with the epochs, a fifth of all the time
TIME = 0.2  # of what there is, where it is limited
RATE = 0.5  # of DX-Net's learning rate: Omnia-Net's own


def goes_by_slices(configuration: Configuration, settings: Settings, weights: str) -> bool:
    """Whether the twin is to learn first: for DX-Net, from an encoder's weights or at random.

    The paper's own network starts from the encoder, so that its comparisons can be repeated.
    """
    is_dx = configuration.dims == 3 and configuration.kind == "unet" and configuration.network == "default"
    return settings.slices_first and is_dx and not is_model(weights)


def twin_of(configuration: Configuration) -> Configuration:
    """Return the 2D network whose 3D twin `configuration` is, for slices of the same patches."""
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
            "strides": tuple(stride[1:] for stride in configuration.strides),
            "kernel_sizes": tuple(kernel[1:] for kernel in configuration.kernel_sizes),
        }
    )


def with_configuration(plan: Plan, configuration: Configuration) -> Plan:
    """Return the plan with one more configuration, so that its checkpoints can be used by themselves."""
    return plan.model_copy(update={"configurations": {**plan.configurations, configuration.name: configuration}})


def twin_settings(settings: Settings) -> Settings:
    """Return the twin's share of the epochs and the time, at its own learning rate."""
    changes = {"epochs": EPOCHS * settings.epochs, "learning_rate": RATE * settings.learning_rate}
    return _with_time(settings.model_copy(update=changes), TIME)


def settings_after(settings: Settings) -> Settings:
    """Return DX-Net's own: what the twin leaves of the time."""
    return _with_time(settings, 1 - TIME)


def _with_time(settings: Settings, share: float) -> Settings:
    if settings.max_seconds is None:
        return settings
    return settings.model_copy(update={"max_seconds": share * settings.max_seconds})
