from typing import Any

import pytest

from autocrossdim.records.labels import Labels
from autocrossdim.records.plan import GIGABYTE
from autocrossdim.records.plan_options import PlanOptions
from autocrossdim.system.errors import UserError
from planners import sizing
from planners.memory import StepMemory
from planners.sizing import Kind, Sizer
from planners.trial import Outcome

ISOTROPIC = (1.0, 1.0, 1.0)


def sizer(memory: float = 8.0, kind: Kind = "unet", **choices: Any) -> Sizer:
    options = PlanOptions.model_validate({"encoder": "resnet18", "trial": False, **choices})
    return Sizer(
        channels=1,
        labels=Labels.from_dataset_json({"background": 0, "organ": 1}),
        options=options,
        mixed=False,
        budget_bytes=int(memory * GIGABYTE),
        kind=kind,
    )


def test_a_size_steps_down_until_the_gpu_can_run_it(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[tuple[tuple[int, ...], int]] = []

    def full_gpu(memory: StepMemory, patch: tuple[int, ...], batch: int) -> Outcome:
        tried.append((patch, batch))
        return Outcome(fits=len(tried) == 3, peak_bytes=123)

    monkeypatch.setattr(sizing, "try_out", full_gpu)
    size, outcome = sizer(1.0, trial=True).size_that_runs((256, 256), (1.0, 1.0), 10**9)
    assert outcome.peak_bytes == 123
    assert len(tried) == 3
    assert tried[0][1] > tried[1][1] > tried[2][1] == size.batch


def test_a_requested_patch_is_padded_to_the_strides() -> None:
    size = sizer(patch_size=(30, 40)).size((60, 50), (1.0, 1.0), 10**6)
    assert size.patch == (32, 40)


def test_in_plane_sides_keep_all_slices_of_a_volume() -> None:
    size = sizer(patch_size=(32, 32)).size((7, 60, 50), ISOTROPIC, 10**6)
    assert size.patch == (7, 32, 32)


def test_a_requested_patch_gives_ds_net_enough_slices() -> None:
    size = sizer(patch_size=(3, 32, 32), kind="ds").size((40, 60, 50), ISOTROPIC, 10**6)
    assert size.patch == (5, 32, 32)


def test_a_requested_patch_that_does_not_fit_is_named() -> None:
    with pytest.raises(UserError, match=r"--patch-size 60,50: .* 64 × 56 .*batch size 64 needs .* budget is 0.1 GB"):
        sizer(0.1, patch_size=(60, 50), batch_size=64).size((60, 50), (1.0, 1.0), 10**6)


def test_in_plane_sides_can_ask_for_too_many_voxels() -> None:
    with pytest.raises(UserError, match=r"--patch-size 4096,4096: .*limit"):
        sizer(patch_size=(4096, 4096)).size((400, 512, 512), ISOTROPIC, 10**6)


@pytest.mark.parametrize("dims", [2, 3])
def test_too_little_memory_names_the_smallest_budget_that_works(dims: int) -> None:
    shape, spacing = (40, 60, 50)[-dims:], ISOTROPIC[-dims:]
    with pytest.raises(UserError, match=r"needs [0-9.]+ GB") as caught:
        sizer(0.001).size(shape, spacing, 10**6)
    needed = float(str(caught.value).rsplit("needs ", 1)[1].split(" ")[0])
    size = sizer(needed).size(shape, spacing, 10**6)
    assert size.memory.training(size.patch, size.batch) <= needed * GIGABYTE


def test_an_image_too_small_for_the_encoders_stem_can_be_planned() -> None:
    size = sizer(encoder="test_convnext").size((9, 9), (1.0, 1.0), 10**6)
    assert size.topology.strides == ((2, 2), (1, 1))


def test_choices_that_do_not_apply_are_switched_off() -> None:
    chosen = {"slices": 3, "deep_supervision": True}
    assert sizer(**chosen).choices(2) | chosen == sizer(**chosen).choices(2)
    assert sizer(**chosen).choices(3)["slices"] == 1
    assert sizer(kind="ds", **chosen).choices(3)["deep_supervision"] is False


def test_a_unet_that_does_not_fit_cannot_have_a_smaller_encoder() -> None:
    with pytest.raises(UserError, match=r"Training a U-Net in 2D on the smallest patch .* Raise --memory if"):
        sizer(0.001, kind="plain").size((60, 50), (1.0, 1.0), 10**6)
