"""Depthwise 3D convolutions, computed in the way that is fastest on the device."""

import torch
from torch import Tensor

from autocrossdim.networks.depthwise_cpu import with_cheap_gradients
from autocrossdim.networks.depthwise_slices import by_slices
from autocrossdim.networks.layers import Conv3d, Conv3dSame

_X86 = torch.backends.cpu.get_cpu_capability().startswith("AVX")
_ONEDNN_ON_X86 = _X86 and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]


class DepthwiseConv3d(Conv3d):
    """A `Conv3d` with one input and one output channel per group, which takes less time.

    Parameters, their names and results are the same, up to rounding. `conv3d` itself is used on other devices than x86
    CPUs and NVIDIA GPUs, while compiling, with dilation or other padding than zeros, and on a CPU in other types than
    float32, with autocast and without gradients. It is also used on `meta`, where memory is computed: the same tensors
    are kept for the backward pass, and the temporary memory here is less than that of the features of other layers.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self._is_supported(input):
            assert not isinstance(self.padding, str)
            if _is_faster_on_cpu(input):
                result = with_cheap_gradients(input, weight, self.stride, self.padding)
                return result if bias is None else result + bias[:, None, None, None]
            if input.device.type == "cuda" and torch.version.hip is None:  # ROCm has other kernels
                return self._on_gpu(input, weight, bias)
        return super()._conv_forward(input, weight, bias)

    def _on_gpu(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        assert not isinstance(self.padding, str)
        kind = input.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else input.dtype
        result = by_slices(input.to(dtype), weight.to(dtype), self.stride, self.padding)
        return result if bias is None else result + bias.to(dtype)[:, None, None, None]

    def _is_supported(self, x: Tensor) -> bool:
        return (
            self.dilation == (1, 1, 1)
            and self.padding_mode == "zeros"
            and not isinstance(self.padding, str)
            and x.ndim == 5
            and not torch.compiler.is_compiling()
        )


def _is_faster_on_cpu(x: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and _ONEDNN_ON_X86
    )


class DepthwiseConv3dSame(DepthwiseConv3d, Conv3dSame):
    """`DepthwiseConv3d` with TensorFlow's "same" padding."""
