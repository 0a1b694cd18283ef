import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from autocrossdim.data.dataset import load_dataset
from autocrossdim.preprocessing.fingerprint import extract
from autocrossdim.records.plan import GIGABYTE, Plan
from autocrossdim.records.plan_options import PlanOptions
from autocrossdim.system.errors import UserError
from planners.auto import AutoPlanner, auto, ds, dx, omnia, unet
from planners.trial import Outcome

SPACINGS = st.tuples(st.floats(0.3, 12), st.floats(0.3, 2), st.floats(0.3, 2))
SHAPES = st.tuples(st.integers(1, 300), st.integers(16, 512), st.integers(16, 512))
ISOTROPIC = (1.0, 1.0, 1.0)

Described = Callable[..., Any]


def options(**changes: Any) -> PlanOptions:
    return PlanOptions(**{"trial": False, "memory": 8.0, "encoder": "test_efficientnet", **changes})


def planned(data: tuple[Any, Any], planner: AutoPlanner = auto, **changes: Any) -> Plan:
    return planner.plan(*data, options(**changes))


# Each example plans a dataset, which takes seconds: few examples, and a failing one is not simplified.
@pytest.mark.slow
@settings(
    max_examples=2,
    phases=[Phase.explicit, Phase.generate],
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@example((1.0, 2.0, 1.0), (1, 275, 16), 298, 1.0)  # so small that more slices would fit than a batch may have
@given(SPACINGS, SHAPES, st.integers(1, 1500), st.sampled_from([0.1, 1.0, 8.0]))
def test_every_plan_is_consistent(
    described: Described,
    spacing: tuple[float, float, float],
    shape: tuple[int, int, int],
    cases: int,
    memory: float,
) -> None:
    plan = planned(described(spacing, shape, cases), memory=memory)
    assert sorted(plan.transpose) == [0, 1, 2]
    for configuration in plan.configurations.values():
        assert configuration.memory.estimated_bytes <= configuration.memory.budget_bytes == int(memory * GIGABYTE)
        assert configuration.batch_size >= 2
        total = np.prod(configuration.strides, axis=0)
        median = np.array(configuration.median_shape[-configuration.dims :])
        patch = np.array(configuration.patch_size)
        assert (patch % total == 0).all()
        assert (patch < median + total).all()
        voxels = cases * np.prod(configuration.median_shape)
        assert configuration.batch_size == 2 or configuration.batch_size * np.prod(patch) <= 0.05 * voxels * 1.01
    assert Plan.model_validate_json(plan.model_dump_json()) == plan


@pytest.mark.slow
@settings(max_examples=1, phases=[Phase.generate], deadline=None, suppress_health_check=list(HealthCheck))
@given(SPACINGS, SHAPES)
def test_more_memory_never_leads_to_a_smaller_patch_or_batch(
    described: Described, spacing: tuple[float, float, float], shape: tuple[int, int, int]
) -> None:
    data = described(spacing, shape)
    plans = [planned(data, memory=memory) for memory in (0.1, 0.3, 1.0, 4.0)]
    for less, more in itertools.pairwise(plans):
        for name in less.configurations.keys() & {"omnia", "dx"}:
            a, b = less.configurations[name], more.configurations[name]
            assert np.prod(a.patch_size) <= np.prod(b.patch_size)
            assert a.patch_size != b.patch_size or a.batch_size <= b.batch_size


def test_the_users_choices_replace_the_planners_and_are_recorded(described: Described) -> None:
    data = described(ISOTROPIC, (40, 60, 50))
    plan = planned(data, omnia, encoder="resnet18", patch_size=(30, 40), batch_size=5, memory=3.0)
    chosen = plan.configuration()
    assert (chosen.name, chosen.encoder, chosen.patch_size, chosen.batch_size) == ("omnia", "resnet18", (32, 40), 5)
    assert plan.overrides == {
        "memory": "3.0",
        "encoder": "resnet18",
        "patch_size": "(30, 40)",
        "batch_size": "5",
        "planner": "omnia",
    }
    assert "--planner omnia was requested, so omnia is used instead of dx." in plan.decision.reasons
    assert "The memory budget is 3 GB, as requested." in plan.decision.reasons


def test_reasons_give_patch_and_batch_size(described: Described) -> None:
    data = described(ISOTROPIC, (34, 51, 36))
    small = planned(data, dx, patch_size=(16, 32, 32), batch_size=2)
    assert small.decision.reasons[2] == (
        "Patch size 16 × 32 × 32 voxels, which covers part of a typical image (34 × 51 × 36); batch size 2."
    )
    slices = planned(data, omnia, batch_size=2)
    assert slices.decision.reasons[3] == (
        "Patch size 56 × 40 pixels, which covers a typical slice (51 × 36); batch size 2."
    )


@pytest.mark.parametrize(
    ("what", "spacing", "shape", "changes", "names"),
    [
        ("a single case", ISOTROPIC, (40, 60, 50), {"cases": 1}, {"omnia", "dx"}),
        ("two voxels thick", ISOTROPIC, (2, 60, 50), {}, {"omnia", "dx"}),
        ("2D", ISOTROPIC, (1, 256, 256), {}, {"omnia"}),
        ("61 labels", ISOTROPIC, (100, 100, 100), {"labels": 61}, {"omnia", "dx"}),
    ],
)
def test_unusual_datasets(
    described: Described, what: str, spacing: Any, shape: Any, changes: dict[str, Any], names: set[str]
) -> None:
    assert set(planned(described(spacing, shape, **changes)).configurations) == names, what


@pytest.mark.slow
def test_a_coarser_configuration_covers_a_quarter_or_all_that_fits(described: Described) -> None:
    plan = planned(described((1.0, 0.767, 0.767), (432, 512, 512), channels=("CT",)))  # of the liver
    assert set(plan.configurations) == {"omnia", "dx", "dx_lowres", "dx_cascade"}
    fine, coarse = plan.configurations["dx"], plan.configurations["dx_lowres"]
    assert np.prod(fine.patch_size) < 0.25 * np.prod(fine.median_shape)
    assert np.prod(coarse.patch_size) > 0.2 * np.prod(coarse.median_shape)
    assert all(c > f for c, f in zip(coarse.spacing, fine.spacing, strict=True))
    assert any("dx_lowres" in note for note in plan.notes)
    cascade = plan.configurations["dx_cascade"]
    assert (cascade.previous_stage, cascade.spacing) == ("dx_lowres", fine.spacing)
    assert plan.network_plan(cascade).mask_channels == len(plan.labels.foreground)


def test_2d_images_keep_their_axes_and_are_not_called_mixed(described: Described) -> None:
    dataset, fingerprint = described((1.0, 2.0, 1.5), (1, 128, 96), cases=4)
    finer = fingerprint.cases[0].model_copy(update={"spacing": (1.0, 0.2, 0.2)})
    mixed = fingerprint.model_copy(update={"cases": (finer, *fingerprint.cases[1:])})
    plan = planned((dataset, mixed))
    assert plan.transpose == (0, 1, 2)
    assert plan.configuration().spacing == (2.0, 1.5)
    assert not any("mixed" in note for note in plan.notes)


@pytest.mark.parametrize(("spacing", "shape"), [((1, 1, 1), (24, 32, 24)), ((8, 1, 1), (20, 48, 32))])
def test_volumes_are_augmented_as_in_nnunet(
    described: Described, spacing: tuple[float, float, float], shape: tuple[int, int, int]
) -> None:
    plan = planned(described(spacing, shape))
    assert {each.augmentation for each in plan.configurations.values()} == {"standard"}
    assert {each.image_statistics for each in plan.configurations.values()} == {0}


def test_2d_images_are_augmented_more_than_in_nnunet(described: Described) -> None:
    images = described((1, 1, 1), (1, 64, 48))
    plan = planned(images)
    assert (plan.configuration().augmentation, plan.configuration().image_statistics) == ("strong", 0.2)
    assert any(note.startswith("Augmentation is strong, and batch norms use 20 %") for note in plan.notes)
    unet = planned(images, AutoPlanner("unet")).configuration()
    assert (unet.augmentation, unet.image_statistics) == ("strong", 0)


def test_neighbouring_slices_do_not_apply_to_2d_images(described: Described) -> None:
    plan = planned(described(ISOTROPIC, (1, 64, 64)), slices=3)
    assert plan.configuration().slices == 1
    assert "--slices 3 does not apply to 2D images." in plan.notes


@pytest.mark.parametrize("planner", [dx, ds])
def test_volumes_cannot_be_planned_from_2d_images(described: Described, planner: AutoPlanner) -> None:
    with pytest.raises(UserError, match="2D images"):
        planned(described(ISOTROPIC, (1, 256, 256)), planner)


def test_ds_is_planned_on_request(described: Described) -> None:
    plan = planned(described(ISOTROPIC, (16, 32, 32)), ds)
    assert (plan.decision.configuration, plan.configuration().kind) == ("ds", "ds")


@pytest.mark.parametrize(
    ("spacing", "shape", "dims", "strides"),
    [
        (ISOTROPIC, (36, 50, 35), 3, ((2, 2, 2),) * 3),
        # As in nnU-Net, the number of levels is not that of an encoder: pixels are halved while 4 remain.
        ((5.0, 0.8, 0.8), (8, 256, 256), 2, ((2, 2),) * 6),
        (ISOTROPIC, (1, 64, 64), 2, ((2, 2),) * 4),
    ],
)
def test_a_plain_unet_has_as_many_axes_as_what_would_be_chosen(
    described: Described, spacing: Any, shape: Any, dims: int, strides: Any
) -> None:
    plan = planned(described(spacing, shape), unet, patch_size=shape[-dims:], batch_size=2)
    chosen = plan.configuration()
    assert (chosen.name, chosen.kind, chosen.dims, chosen.encoder, chosen.network) == (
        *("unet", "plain", dims, "none", "default"),
    )
    assert chosen.strides == strides
    assert "--encoder does not apply to unet, which has no pretrained encoder." in plan.notes
    assert plan.trained_by_run == ("unet",)


def test_invalid_options_are_refused_before_anything_is_sized(described: Described) -> None:
    with pytest.raises(UserError, match="--patch-size 1,1,1"):
        planned(described(ISOTROPIC, (40, 60, 50)), patch_size=(1, 1, 1))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "configuration"),
    [("Dataset004_Hippocampus", "dx"), ("Dataset045_SunnybrookLV", "omnia"), ("Dataset046_SunnybrookSlices", "omnia")],
)
def test_real_datasets(real_data: Path, name: str, configuration: str) -> None:
    dataset = load_dataset(real_data / name)
    plan = auto.plan(dataset, extract(dataset, processes=2)[0], options())
    assert plan.decision.configuration == configuration
    assert len(plan.decision.reasons) >= 2


@pytest.mark.parametrize(
    ("outcome", "compiling", "message"),
    [
        (Outcome(fits=False), 0, "too little memory for a step of omnia"),
        (Outcome(), 5, "torch.compile took more than 5 s"),
    ],
)
def test_a_step_that_cannot_be_measured_says_why(
    outcome: Outcome, compiling: float, message: str, described: Described, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(described(ISOTROPIC, (1, 32, 32)))
    monkeypatch.setattr("planners.auto.run_here", lambda _: outcome)
    monkeypatch.setattr("planners.auto.attempt", lambda _, seconds: outcome)
    with pytest.raises(UserError, match=f"--device cpu: {message}"):
        auto.measure_step(plan, plan.configurations["omnia"], "cpu", compiling=compiling)
