"""Which layers are known in 3D: those with a twin, and those that need none because they stay as they are."""

from timm import layers as tl
from timm.layers.cbam import CbamModule, SpatialAttn
from timm.models import _efficientnet_blocks, convnext, efficientnet, regnet, resnet
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.pooling import _AvgPoolNd, _MaxPoolNd

from autocrossdim.networks.twins import TWINS

# Written for any number of spatial axes, or over channels only: read, and tested family by family.
_FREE: frozenset[type] = frozenset(
    {
        *(nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.Identity, nn.Dropout),
        *(nn.Linear, nn.PReLU, nn.GroupNorm, nn.LayerNorm, tl.LayerNorm),
        *(tl.GroupNorm, tl.GroupNorm1, tl.GroupNormAct, tl.DropPath),
        *(CbamModule, SpatialAttn, tl.ConvNormAct, tl.Mlp, tl.GlobalResponseNormMlp),
        *(tl.SelectAdaptivePool2d, tl.ClassifierHead, tl.NormMlpClassifierHead),
        *(efficientnet.EfficientNet, _efficientnet_blocks.ConvBnAct, _efficientnet_blocks.EdgeResidual),
        *(_efficientnet_blocks.DepthwiseSeparableConv, _efficientnet_blocks.InvertedResidual),
        *(resnet.ResNet, resnet.BasicBlock, resnet.Bottleneck),
        *(regnet.RegNet, regnet.RegStage, regnet.Bottleneck, regnet.PreBottleneck),
        *(convnext.ConvNeXt, convnext.ConvNeXtStage, convnext.Downsample),
    }
)
_ALONG_AN_AXIS = (nn.GLU, nn.LogSoftmax, nn.Softmax, nn.Softmin)
# Right or wrong in 3D depending on their axis or on the size of their input.
_UNCERTAIN = (*_ALONG_AN_AXIS, nn.Flatten, nn.Softmax2d)
# These flatten what they have pooled to one voxel.
_HEADS = (tl.SelectAdaptivePool2d, tl.ClassifierHead, tl.NormMlpClassifierHead)
_ELEMENTWISE = ("torch.nn.modules.activation", "timm.layers.activations")
# Layers of torch, also as bases of others, that compute over two axes unless a twin is registered.
_SPATIAL_BASES = (_ConvNd, _NormBase, _MaxPoolNd, _AvgPoolNd)


def all_known(module: nn.Module) -> bool:
    """Whether the 3D forms of a module and of all its parts were written or reviewed, so that they need no check."""
    twin = TWINS.get(type(module))
    parts = [part for part in module.children() if not (isinstance(part, nn.Flatten) and type(module) in _HEADS)]
    return is_known(module) and ((twin is not None and twin.whole) or all(map(all_known, parts)))


def is_known(module: nn.Module) -> bool:
    """Whether the 3D form of a layer itself, without its parts, was written or reviewed rather than only tried."""
    kind = type(module)
    if kind in _UNCERTAIN or _has_rare_options(module):
        return False
    return kind in TWINS or kind in _FREE or _is_elementwise(module)


def is_refused(module: nn.Module) -> bool:
    """Whether a layer without a twin certainly computes over two axes, so that there is nothing to try."""
    if isinstance(module, _ALONG_AN_AXIS):  # counted from the first, axes of the image move when one is added
        return module.dim is not None and module.dim > 1
    if is_known(module) or type(module) in _UNCERTAIN:
        return False
    of_torch = type(module).__module__.startswith("torch.") and not any(True for _ in module.children())
    # Over pooled features a BatchNorm1d is right, so that it is left to the proof.
    return type(module) is not nn.BatchNorm1d and (of_torch or isinstance(module, _SPATIAL_BASES))


def _has_rare_options(module: nn.Module) -> bool:
    """Whether a layer of torch has options with which its 3D form may give other values."""
    if isinstance(module, nn.LayerNorm):
        return len(module.normalized_shape) > 1
    if isinstance(module, nn.ConvTranspose2d):
        return module.dilation != (1, 1)
    if isinstance(module, nn.AvgPool2d):
        counts_padding = module.count_include_pad and module.ceil_mode and module.padding not in (0, (0, 0))
        return counts_padding or module.divisor_override is not None
    return bool(getattr(module, "return_indices", False))


def _is_elementwise(module: nn.Module) -> bool:
    state = any(True for _ in module.parameters(recurse=False)) or any(True for _ in module.buffers(False))
    return not state and type(module).__module__.startswith(_ELEMENTWISE)
