"""A trained network rewritten for prediction: the same function to 1e-5, in less time and memory.

Measured on one core with EfficientNet-B0, channels last: 0.66 s instead of 1.22 s for 1 x 64 x 96 x 96 voxels in 3D,
0.29 s instead of 0.56 s for 4 x 256 x 256 pixels in 2D.
"""

import itertools

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils.fusion import fuse_conv_bn_weights

from autocrossdim.networks.image_norm import ImageNorm, use_image_statistics
from autocrossdim.networks.layers import AcsConv3d
from autocrossdim.networks.reviewed import is_known
from autocrossdim.networks.unet import DecoderBlock, UNet
from autocrossdim.networks.upsampled import spread


def fuse(network: nn.Module, *, image_statistics: float = 0.0) -> None:
    """Rewrite a network in place. It must not be trained, saved or loaded into afterwards.

    Args:
        network: The network.
        image_statistics: Share of each image's own statistics in batch norms. With 0, they become part of the
            convolutions before them.
    """
    network.eval().requires_grad_(False)
    for module in list(network.modules()):
        _fold_norms(module, image_statistics)
        if isinstance(module, UNet):
            below = module.encoder.channels[-1]
            for name, block in module.decoder.items():
                assert isinstance(block, DecoderBlock)
                if isinstance(block.up, nn.Upsample | nn.Identity):
                    _fold_norms(block.conv1, image_statistics)
                    module.decoder[name] = FusedDecoderBlock(block, below)
                below = block.conv2.conv.out_channels  # type: ignore[assignment]
    if image_statistics:
        use_image_statistics(network, image_statistics)


def _fold_norms(module: nn.Module, image_statistics: float) -> None:
    """Fold each batch norm among the children of `module` into the convolution directly before it.

    With image statistics, it stays behind the convolution, whose output it overwrites.

    Not in blocks of other families, whose layers need not run in the order in which they are registered.
    """
    ours = type(module).__module__.startswith("autocrossdim.")
    if not (ours or isinstance(module, nn.Sequential) or is_known(module)):
        return
    for (_, conv), (name, norm) in itertools.pairwise(list(module.named_children())):
        if (
            isinstance(conv, _ConvNd | AcsConv3d)
            and not isinstance(conv, _ConvTransposeNd)
            and isinstance(norm, _BatchNorm)
        ):
            if image_statistics:
                setattr(module, name, ImageNorm(norm, image_statistics, inplace=True))
                continue
            assert norm.running_mean is not None
            assert norm.running_var is not None
            conv.weight, conv.bias = fuse_conv_bn_weights(
                conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
            )
            setattr(module, name, getattr(norm, "act", nn.Identity()))  # timm's norms contain the activation


class FusedDecoderBlock(nn.Module):
    """A `DecoderBlock` with folded norms and precomputed kernels of `conv_upsampled`.

    Args:
        block: Decoder block whose first convolution has its norm folded.
        below: Number of channels from the coarser level.
    """

    def __init__(self, block: DecoderBlock, below: int) -> None:
        super().__init__()
        self.conv1, self.conv2, self.up, self.scale = block.conv1, block.conv2, block.up, block.scale
        conv = block.conv1.conv
        assert isinstance(conv, nn.Conv2d | nn.Conv3d)
        self.padding = tuple(kernel // 2 for kernel in conv.kernel_size)
        self.bias = conv.bias
        self.of_skip = nn.Parameter(conv.weight[:, below:].contiguous(), requires_grad=False)
        self.of_enlarged = nn.Parameter(conv.weight[:, :below].contiguous(), requires_grad=False)
        self.of_small = nn.Parameter(spread(self.of_enlarged, self.scale), requires_grad=False)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Compute the same as `DecoderBlock.forward`."""
        conv, transposed = (F.conv3d, F.conv_transpose3d) if x.ndim == 5 else (F.conv2d, F.conv_transpose2d)
        y = conv(skip, self.of_skip, self.bias, padding=self.padding)
        enlarged = [size * scale for size, scale in zip(x.shape[2:], self.scale, strict=True)]
        if list(skip.shape[2:]) == enlarged:
            y += transposed(x, self.of_small, None, self.scale, self.padding)
        else:  # the convolution must see zeros beyond the skip features
            x = self.up(x)[(..., *(slice(size) for size in skip.shape[2:]))]
            y += conv(x, self.of_enlarged, None, padding=self.padding)
        return self.conv2(self.conv1.rest(y))  # type: ignore[no-any-return]
