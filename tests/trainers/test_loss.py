import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainers.loss import IGNORED, DeepSupervision, DiceCrossEntropy, open_classes, soft_dice


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


# --- structures that were not annotated everywhere: of four classes, background (0), 1, 2 and 3

CLASSES = 4
SETS = ((0, 1, 2, 3), (0, 2), (0, 2, 3))
NOTHING, NO_SECOND, ONLY_FIRST = range(CLASSES, CLASSES + len(SETS))  # targets of background


def marginal(**weights: float) -> DiceCrossEntropy:
    return DiceCrossEntropy(regions=False, class_sets=SETS, **weights)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_where_everything_was_annotated_the_marginal_loss_is_the_plain_loss(seed: int) -> None:
    torch.manual_seed(seed)
    logits, target = torch.randn(2, CLASSES, 5, 6), torch.randint(-1, CLASSES, (2, 5, 6))
    plain = DiceCrossEntropy(regions=False)(logits, target)
    torch.testing.assert_close(marginal()(logits, target), plain)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([NO_SECOND, ONLY_FIRST]))
def test_the_marginal_loss_is_the_plain_loss_of_the_classes_that_were_annotated(seed: int, background: int) -> None:
    """In a case in which some classes were not annotated, they and background are one class."""
    torch.manual_seed(seed)
    merged = SETS[background - CLASSES]
    annotated = [index for index in range(CLASSES) if index not in merged]
    logits = torch.randn(2, CLASSES, 5, 6)
    plain_target = torch.randint(0, 1 + len(annotated), (2, 5, 6))
    target = torch.tensor([background, *annotated])[plain_target]
    fewer = torch.cat([logits[:, list(merged)].logsumexp(dim=1, keepdim=True), logits[:, annotated]], dim=1)
    weights = {"dice_weight": 0.0, "cross_entropy_weight": 1.0}
    expected = DiceCrossEntropy(regions=False, **weights)(fewer, plain_target)
    torch.testing.assert_close(marginal(**weights)(logits, target), expected)
    # The Dice of annotated classes is the same; that of the others rests on the voxels of annotated classes alone.
    known = ~open_classes(target, SETS, CLASSES)
    assert known[:, annotated].all()
    probabilities = logits.softmax(dim=1)
    one_hot = torch.nn.functional.one_hot(target.clamp(max=CLASSES), CLASSES + 1).movedim(-1, 1)[:, :CLASSES]
    dice = soft_dice((probabilities * known)[:, 1:], (one_hot * known)[:, 1:])
    torch.testing.assert_close(marginal(cross_entropy_weight=0.0)(logits, target), 1 - dice.mean())


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_a_class_that_was_not_annotated_is_not_unlearned_on_background(seed: int) -> None:
    torch.manual_seed(seed)
    target = torch.where(torch.rand(2, 5, 6) < 0.3, torch.tensor(1), torch.tensor(NO_SECOND))

    def gradient(loss: DiceCrossEntropy, target: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(seed)
        logits = torch.randn(2, CLASSES, 5, 6, requires_grad=True)
        loss(logits, target).backward()
        assert logits.grad is not None
        return logits.grad

    background = target == NO_SECOND
    assert (gradient(marginal(), target)[:, 2][background] <= 1e-7).all(), "gradient descent never lowers its logit"
    assert (gradient(marginal(), target)[:, 3][background] > 0).all(), "class 3 was annotated and is not there"
    plain = gradient(DiceCrossEntropy(regions=False), target.masked_fill(background, 0))
    assert (plain[:, 2][background] > 0).all(), "the plain loss does lower it"


def test_a_case_in_which_nothing_was_annotated_has_no_loss() -> None:
    logits = torch.randn(2, CLASSES, 5, 6, requires_grad=True)
    loss = marginal()(logits, torch.full((2, 5, 6), NOTHING))
    loss.backward()
    assert abs(loss.item()) < 1e-5
    assert logits.grad is not None
    assert logits.grad.abs().max() < 1e-6


def test_sets_of_classes_work_with_deep_supervision_and_ignored_voxels() -> None:
    target = torch.full((1, 8, 8), NO_SECOND)
    target[:, :4], target[:, 6:] = 1, IGNORED
    loss = DeepSupervision(marginal())([torch.randn(1, CLASSES, 8, 8), torch.randn(1, CLASSES, 4, 4)], target)
    assert torch.isfinite(loss)
