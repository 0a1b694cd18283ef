"""Batch normalisation that also looks at the image to be segmented.

In training, a batch norm uses the mean and the variance of the batch; in prediction, averages of them over training.
Features of an image with another contrast are then out of the range that the network knows. Mixing in the image's own
statistics brings them back (Schneider et al., "Improving robustness against common corruptions by covariate shift
adaptation", NeurIPS 2020). Measured: benchmarks/results/image_statistics.md.
"""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class ImageNorm(nn.Module):
    """A trained batch norm whose statistics are partly those of each image, or tile of an image, itself.

    Args:
        norm: The batch norm; timm's contain an activation, which is applied too.
        share: Share of the image's statistics, from 0 (a batch norm) to 1 (an instance norm).
        inplace: Whether the input may be overwritten, as the output of a convolution may; without gradients only.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, norm: _BatchNorm, share: float, *, inplace: bool) -> None:
        super().__init__()
        assert norm.running_mean is not None
        assert norm.running_var is not None
        self.share, self.eps, self.inplace = share, norm.eps, inplace
        self.register_buffer("mean", norm.running_mean)
        self.register_buffer("variance", norm.running_var)
        self.weight, self.bias = norm.weight, norm.bias
        self.act = getattr(norm, "act", nn.Identity())

    def forward(self, x: Tensor) -> Tensor:
        """Normalise every channel of every image: (B, C, *spatial) -> the same shape."""
        shape = (1, -1, *[1] * (x.ndim - 2))
        # In float32: the variance of half-precision features can exceed their range.
        mean, variance = _statistics(x.float())
        mean = torch.lerp(self.mean.view(shape), mean, self.share)
        variance = torch.lerp(self.variance.view(shape), variance, self.share)
        factor = self.weight.view(shape) * (variance + self.eps).rsqrt()
        offset = self.bias.view(shape) - mean * factor
        factor, offset = factor.to(x.dtype), offset.to(x.dtype)
        return self.act(torch.addcmul(offset, x, factor, out=x if self.inplace else None))  # type: ignore[no-any-return]


def _statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and variance of every channel of every image, shape (B, C, 1, ...)."""
    axes = tuple(range(2, x.ndim))
    if x.device.type != "cpu":
        variance, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
        return mean, variance
    # With channels last, torch.var_mean takes several times as long on a CPU: 17 instead of 1 ms (4 x 96 x 64 x 64).
    mean = x.mean(axes, keepdim=True)
    return mean, (x - mean).square_().mean(axes, keepdim=True)


def use_image_statistics(network: nn.Module, share: float) -> None:
    """Replace all batch norms of a network, in place.

    Args:
        network: The network. It must not be trained, saved or loaded into afterwards.
        share: Share of the image's statistics, from 0 to 1.
    """
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, _BatchNorm):
                setattr(module, name, ImageNorm(child, share, inplace=False))
