import pytest

from autocrossdim.records.plan_options import PlanOptions
from autocrossdim.system.errors import UserError
from planners.auto import auto
from planners.options import check_options, encoder_depths


def test_defaults_are_accepted() -> None:
    check_options(PlanOptions())


def test_an_unknown_encoder_is_reported_with_similar_names() -> None:
    with pytest.raises(UserError, match=r"resnet181.*resnet18"):
        auto.check_options(PlanOptions(encoder="resnet181"))


def test_an_unknown_tag_of_an_encoder_is_reported_with_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"encoder resnet18\.typo: resnet18 has no tag typo; it has a1_in1k"):
        auto.check_options(PlanOptions(encoder="resnet18.typo"))
    auto.check_options(PlanOptions(encoder="resnet18.a1_in1k"))


@pytest.mark.parametrize("patch", [(1, 1, 1), (48, 7, 64), (64, 4)])
def test_patches_that_no_network_can_halve_are_refused(patch: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=r"--patch-size .*at least 8 voxels"):
        check_options(PlanOptions(patch_size=patch))


@pytest.mark.parametrize("patch", [(1, 8, 8), (8, 8), (48, 64, 48)])
def test_thin_patches_are_accepted(patch: tuple[int, ...]) -> None:
    check_options(PlanOptions(patch_size=patch))


def test_gigantic_patches_are_refused() -> None:
    with pytest.raises(UserError, match=r"--patch-size 32768,32768: .*limit"):
        check_options(PlanOptions(patch_size=(32768, 32768)))


def test_an_encoder_with_a_stem_of_stride_4_cannot_end_at_level_1() -> None:
    assert encoder_depths("resnet18") == (1, 2, 3, 4, 5)
    assert encoder_depths("test_convnext") == (2, 3, 4, 5)
