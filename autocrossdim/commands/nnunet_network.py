"""The network of nnU-Net for a configuration, to compare its speed with ours on a device."""

from importlib import import_module
from importlib.util import find_spec

from torch import nn

from autocrossdim.records.network import NetworkPlan

PACKAGE = "dynamic_network_architectures"  # comes with nnunetv2
BASE_FEATURES = 32
MOST_FEATURES = {2: 512, 3: 320}  # by number of axes


def is_installed() -> bool:
    """Return whether the package with nnU-Net's networks is installed."""
    return find_spec(PACKAGE) is not None


def nnunet_network(plan: NetworkPlan) -> nn.Module:
    """Return nnU-Net's network with the strides, kernels and outputs of a plan, with random weights.

    It is the PlainConvUNet of nnU-Net 2: two convolutions per level with instance norm and leaky ReLU, and twice the
    features per level, from 32 up to 320 in 3D and 512 in 2D.

    Args:
        plan: Plan of our network.

    Returns:
        The network in eval mode, on the CPU.
    """
    levels = len(plan.kernel_sizes)
    in_3d = plan.dims == 3
    network: nn.Module = import_module(f"{PACKAGE}.architectures.unet").PlainConvUNet(
        input_channels=plan.in_channels,
        n_stages=levels,
        features_per_stage=[min(MOST_FEATURES[plan.dims], BASE_FEATURES * 2**level) for level in range(levels)],
        conv_op=nn.Conv3d if in_3d else nn.Conv2d,
        kernel_sizes=plan.kernel_sizes,
        strides=[[1] * plan.dims, *plan.strides],
        n_conv_per_stage=2,
        num_classes=plan.num_outputs,
        n_conv_per_stage_decoder=2,
        conv_bias=True,
        norm_op=nn.InstanceNorm3d if in_3d else nn.InstanceNorm2d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=False,
    )
    return network.eval()
