import itertools

import pytest
import torch
from torch import Tensor, nn

from autocrossdim.networks.depthwise import DepthwiseConv3d, DepthwiseConv3dSame
from autocrossdim.networks.inflation import inflate
from autocrossdim.networks.layers import Conv3d, Conv3dSame

CHANNELS = 17


def pair(
    kernel: int | tuple[int, ...], stride: int | tuple[int, ...] = 1, padding: int | tuple[int, ...] = 0
) -> tuple[nn.Conv3d, DepthwiseConv3d]:
    """The same layer twice: PyTorch's, and the faster one with its weights."""
    torch.manual_seed(0)
    plain = nn.Conv3d(CHANNELS, CHANNELS, kernel, stride, padding, groups=CHANNELS)
    fast = DepthwiseConv3d(CHANNELS, CHANNELS, kernel, stride, padding, groups=CHANNELS)
    fast.load_state_dict(plain.state_dict())
    return plain, fast


def results(layer: nn.Conv3d, x: Tensor) -> list[Tensor]:
    """The output, and the gradients by input, weight and bias."""
    x = x.detach().requires_grad_()
    y = layer(x)
    torch.manual_seed(1)
    return [y, *torch.autograd.grad(y, [x, *layer.parameters()], torch.randn(y.shape).to(y))]


def assert_same(found: list[Tensor], expected: list[Tensor], tolerance: float = 1e-5) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=tolerance * max(1, float(other.detach().abs().max())))


@pytest.mark.parametrize("kernel", [3, 5, 7, (1, 3, 3), (1, 5, 5), (3, 1, 3)])
@pytest.mark.parametrize("stride", [1, 2, (1, 2, 2), (3, 2, 4)])
def test_values_and_gradients_are_conv3ds(kernel: int | tuple[int, ...], stride: int | tuple[int, ...]) -> None:
    extents = (kernel,) * 3 if isinstance(kernel, int) else kernel
    same = tuple(k // 2 for k in extents)
    for padding, shape in itertools.product([same, (0, 0, 0), (2, 0, 7)], [(7, 8, 9), (8, 7, 8), (2, 3, 1)]):
        if all(n + 2 * p >= k for n, p, k in zip(shape, padding, extents, strict=True)):
            plain, fast = pair(kernel, stride, padding)
            x = torch.randn(2, CHANNELS, *shape)
            assert_same(results(fast, x), results(plain, x))


@pytest.mark.parametrize("kernel", [3, 5, (1, 3, 3), (3, 1, 3)])
@pytest.mark.parametrize("stride", [1, 2, (3, 2, 4)])
def test_what_a_gpu_computes_is_conv3d(
    kernel: int | tuple[int, ...], stride: int | tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DepthwiseConv3d, "_conv_forward", DepthwiseConv3d._on_gpu)
    for shape in ((7, 8, 9), (8, 7, 8), (5, 5, 5)):
        plain, fast = pair(kernel, stride, 2)
        x = torch.randn(2, CHANNELS, *shape).contiguous(memory_format=torch.channels_last_3d)
        found = results(fast, x)
        assert_same(found, results(plain, x))
        assert found[0].is_contiguous(memory_format=torch.channels_last_3d)
        with torch.inference_mode():
            torch.testing.assert_close(fast(x), found[0])


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.02), (torch.float16, 0.002)])
def test_a_gpu_computes_in_the_precision_of_autocast(
    dtype: torch.dtype, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DepthwiseConv3d, "_conv_forward", DepthwiseConv3d._on_gpu)
    plain, fast = pair(3, 2, 1)
    x = torch.randn(2, CHANNELS, 8, 8, 8)
    with torch.autocast("cpu", dtype=dtype):
        found = results(fast, x)
    assert [value.dtype for value in found] == [dtype, *[torch.float32] * 3]
    assert_same([value.float() for value in found], results(plain, x), tolerance)


def test_the_gradients_are_right_by_finite_differences() -> None:
    for kernel, stride in ((3, 2), (5, 1)):
        _, fast = pair(kernel, stride, kernel // 2)
        x = torch.randn(1, CHANNELS, 4, 5, 4)
        y, by_input, by_weight, _ = results(fast, x)
        torch.manual_seed(1)
        weighting = torch.randn(y.shape)
        # The layer is linear in either argument, so that a difference is exact but for rounding.
        along = torch.randn_like(x)
        change = ((fast(x + along) - y) * weighting).double().sum()
        torch.testing.assert_close(change, (by_input * along).double().sum(), rtol=1e-4, atol=1e-3)
        along = torch.randn_like(fast.weight)
        with torch.no_grad():
            fast.weight += along
        change = ((fast(x) - y) * weighting).double().sum()
        torch.testing.assert_close(change, (by_weight * along).double().sum(), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last_3d])
def test_twice_the_same_bits(memory_format: torch.memory_format) -> None:
    _, fast = pair(5, 2, 2)
    x = torch.randn(2, CHANNELS, 9, 8, 10).contiguous(memory_format=memory_format)
    for one, other in zip(results(fast, x), results(fast, x), strict=True):
        assert torch.equal(one, other)


def test_only_the_gradients_asked_for() -> None:
    _, fast = pair(3, 1, 1)
    x = torch.randn(2, CHANNELS, 5, 5, 5)
    fast(x).sum().backward()  # the image's own gradient is never wanted
    assert x.grad is None
    assert fast.weight.grad is not None
    fast.requires_grad_(False)
    x.requires_grad_()
    fast(x).sum().backward()  # a frozen encoder
    assert x.grad is not None


@pytest.mark.skipif(not torch.backends.cpu.get_cpu_capability().startswith("AVX"), reason="conv3d is kept elsewhere")
def test_the_faster_gradients_are_in_use_in_training_only() -> None:
    fast = DepthwiseConv3d(CHANNELS, CHANNELS, 3, groups=CHANNELS, bias=False)
    x = torch.randn(1, CHANNELS, 4, 4, 4)
    assert type(fast(x).grad_fn).__name__ == "_CheapGradientsBackward"
    assert type(fast.bfloat16()(x.bfloat16()).grad_fn).__name__ == "ConvolutionBackward0"


def test_autocast_and_other_types_are_conv3ds() -> None:
    plain, fast = pair(3, 2, 1)
    x = torch.randn(2, CHANNELS, 8, 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, expected = results(fast, x), results(plain, x)
    assert found[0].dtype == torch.bfloat16
    assert_same(found, expected)
    found, expected = results(fast.double(), x.double()), results(plain.double(), x.double())
    assert found[0].dtype == torch.float64
    assert_same(found, expected)


def test_shapes_are_known_without_arithmetic() -> None:
    fast = DepthwiseConv3d(CHANNELS, CHANNELS, 3, 2, 1, groups=CHANNELS, device="meta")
    y, by_input, by_weight, _ = results(fast, torch.empty(2, CHANNELS, 9, 8, 8, device="meta"))
    assert y.shape == (2, CHANNELS, 5, 4, 4)
    assert by_input.shape == (2, CHANNELS, 9, 8, 8)
    assert by_weight.shape == fast.weight.shape


@pytest.mark.slow
def test_it_compiles() -> None:
    plain, fast = pair(3, 1, 1)
    x = torch.randn(2, CHANNELS, 5, 6, 7)
    compiled = torch.compile(fast, backend="aot_eager", fullgraph=True)
    assert_same(results(compiled, x), results(plain, x))


def test_inflation_makes_them_of_depthwise_layers_only() -> None:
    assert type(inflate(nn.Conv2d(8, 8, 3, groups=8))) is DepthwiseConv3d
    assert type(inflate(nn.Conv2d(8, 16, 3, groups=8))) is Conv3d
    assert type(inflate(nn.Conv2d(8, 8, 3))) is Conv3d
    assert type(inflate(nn.Conv2d(1, 1, 3))) is Conv3d


def test_same_padding_is_kept() -> None:
    torch.manual_seed(0)
    plain = Conv3dSame(CHANNELS, CHANNELS, 3, 2, groups=CHANNELS)
    fast = DepthwiseConv3dSame(CHANNELS, CHANNELS, 3, 2, groups=CHANNELS)
    fast.load_state_dict(plain.state_dict())
    x = torch.randn(2, CHANNELS, 8, 7, 6)
    assert_same(results(fast, x), results(plain, x))
