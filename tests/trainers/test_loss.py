import pytest
import torch

from trainers.loss import IGNORED, DeepSupervision, DiceCrossEntropy, soft_dice


def test_a_perfect_prediction_has_no_loss() -> None:
    target = torch.randint(0, 3, (2, 8, 8))
    logits = 100.0 * torch.nn.functional.one_hot(target, 3).movedim(-1, 1)
    assert DiceCrossEntropy(regions=False)(logits, target) < 1e-4


def test_a_perfect_prediction_of_regions_has_no_loss() -> None:
    target = torch.randint(0, 2, (2, 3, 8, 8))
    assert DiceCrossEntropy(regions=True)(200.0 * target - 100, target) < 1e-4


def test_dice_of_a_small_example() -> None:
    probabilities = torch.tensor([[[1.0, 1.0, 0.0, 0.0]]])
    target = torch.tensor([[[1.0, 0.0, 0.0, 0.0]]])
    assert soft_dice(probabilities, target).item() == pytest.approx(2 / 3, abs=1e-4)


@pytest.mark.parametrize("regions", [False, True])
def test_ignored_voxels_do_not_influence_the_loss(regions: bool) -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 6, 6)
    target = torch.randint(0, 2, (2, 3, 6, 6) if regions else (2, 6, 6))
    target[..., :3] = IGNORED
    loss = DiceCrossEntropy(regions)
    changed = logits.clone()
    changed[..., :3] += 50 * torch.randn(2, 3, 6, 3)
    assert loss(logits, target).item() == pytest.approx(loss(changed, target).item(), rel=1e-6)


@pytest.mark.parametrize("regions", [False, True])
def test_the_loss_of_an_entirely_ignored_batch_is_finite(regions: bool) -> None:
    logits = torch.randn(2, 3, 6, 6, requires_grad=True)
    target = torch.full((2, 3, 6, 6) if regions else (2, 6, 6), IGNORED)
    loss = DiceCrossEntropy(regions)(logits, target)
    loss.backward()
    assert torch.isfinite(loss)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("regions", [False, True])
def test_every_coarser_level_has_half_the_weight_of_the_finer_one(regions: bool) -> None:
    torch.manual_seed(0)
    plain = DiceCrossEntropy(regions)
    coarse_target = torch.randint(0, 2, (2, 3, 4, 6) if regions else (2, 4, 6))
    target = coarse_target.repeat_interleave(2, -1).repeat_interleave(2, -2)
    fine, coarse = torch.randn(2, 3, 8, 12), torch.randn(2, 3, 4, 6)
    expected = (plain(fine, target) + plain(coarse, coarse_target) / 2) / 1.5
    assert DeepSupervision(plain)([fine, coarse], target).item() == pytest.approx(expected.item(), rel=1e-6)
    assert DeepSupervision(plain)(fine, target).item() == plain(fine, target).item()


def test_deep_supervision_works_with_odd_sizes() -> None:
    target = torch.randint(0, 3, (1, 7, 9))
    loss = DeepSupervision(DiceCrossEntropy(regions=False))
    assert torch.isfinite(loss([torch.randn(1, 3, 7, 9), torch.randn(1, 3, 4, 5), torch.randn(1, 3, 2, 3)], target))
