import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from autocrossdim.data.dataset import load_dataset
from autocrossdim.preprocessing.fingerprint import extract
from autocrossdim.records.plan import GIGABYTE, Plan, PlanOptions
from autocrossdim.system.errors import UserError
from planners.auto import auto, dx, omnia
from planners.sizing import patches

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"

SPACINGS = st.tuples(st.floats(0.3, 12), st.floats(0.3, 2), st.floats(0.3, 2))
SHAPES = st.tuples(st.integers(1, 300), st.integers(16, 512), st.integers(16, 512))


def options(**changes: Any) -> PlanOptions:
    return PlanOptions(**{"trial": False, "memory": 8.0, **changes})


def planned(made: tuple[Any, Any], **changes: Any) -> Plan:
    return auto.plan(*made, options(**changes))


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@example((1.0, 2.0, 1.0), (1, 275, 16), 298, 1.0)  # slices so small that more would fit a step than a plan may say
@given(SPACINGS, SHAPES, st.integers(1, 1500), st.sampled_from([1.0, 4.0, 24.0]))
def test_every_plan_keeps_its_promises(
    numbers: Callable[..., Any],
    spacing: tuple[float, float, float],
    shape: tuple[int, int, int],
    cases: int,
    memory: float,
) -> None:
    plan = planned(numbers(spacing, shape, cases), memory=memory)
    assert sorted(plan.transpose) == [0, 1, 2]
    for made in plan.configurations.values():
        assert made.memory.estimated_bytes <= made.memory.budget_bytes == memory * GIGABYTE
        assert made.batch_size >= 2
        total = np.prod(made.strides, axis=0)
        median = np.array(made.median_shape[-made.dims :])
        assert (np.array(made.patch_size) % total == 0).all()
        assert (np.array(made.patch_size) < median + total).all()
        voxels = cases * np.prod(made.median_shape)
        assert made.batch_size == 2 or made.batch_size * np.prod(made.patch_size) <= 0.05 * voxels * 1.01
    assert Plan.model_validate_json(plan.model_dump_json()) == plan


@settings(max_examples=2, deadline=None, suppress_health_check=list(HealthCheck))
@given(SPACINGS, SHAPES)
def test_more_memory_never_gives_a_smaller_patch_or_batch(
    numbers: Callable[..., Any], spacing: tuple[float, float, float], shape: tuple[int, int, int]
) -> None:
    made = numbers(spacing, shape)
    plans = [planned(made, memory=memory) for memory in (1.0, 2.0, 5.0, 11.0)]
    for less, more in itertools.pairwise(plans):
        for name in ("omnia", "dx"):
            if name in less.configurations:
                a, b = less.configurations[name], more.configurations[name]
                assert np.prod(a.patch_size) <= np.prod(b.patch_size)
                assert a.patch_size != b.patch_size or a.batch_size <= b.batch_size


@given(SHAPES, SPACINGS)
def test_candidate_patches_only_get_smaller(shape: tuple[int, ...], spacing: tuple[float, ...]) -> None:
    found = [np.array(patch) for patch, _ in patches(shape, spacing)]
    assert (found[0] >= shape).all()
    assert all((a >= b).all() for a, b in itertools.pairwise(found))


def test_overrides_are_taken_and_marked(numbers: Callable[..., Any]) -> None:
    made = numbers((1.0, 1.0, 1.0), (40, 60, 50))
    plan = omnia.plan(*made, options(encoder="resnet18", patch_size=(30, 40), batch_size=5, memory=3.0))
    chosen = plan.configuration()
    assert (chosen.name, chosen.encoder, chosen.patch_size, chosen.batch_size) == ("omnia", "resnet18", (32, 40), 5)
    assert plan.overrides == {
        "memory": "3.0",
        "encoder": "resnet18",
        "patch_size": "(30, 40)",
        "batch_size": "5",
        "planner": "omnia",
    }
    assert any("You asked for omnia" in reason for reason in plan.decision.reasons)


def test_too_little_memory_names_the_smallest_that_works(numbers: Callable[..., Any]) -> None:
    made = numbers((1.0, 1.0, 1.0), (40, 60, 50))
    with pytest.raises(UserError, match="needs [0-9.]+ GB") as caught:
        planned(made, memory=0.01)
    needed = float(str(caught.value).rsplit("needs ", 1)[1].split(" ")[0])
    assert planned(made, memory=needed).configuration().memory.estimated_bytes <= needed * GIGABYTE


@pytest.mark.parametrize(
    ("what", "spacing", "shape", "changes", "names"),
    [
        ("a single case", (1.0, 1.0, 1.0), (40, 60, 50), {"cases": 1}, {"omnia", "dx"}),
        ("two voxels thick", (1.0, 1.0, 1.0), (2, 60, 50), {}, {"omnia", "dx"}),
        ("2D", (1.0, 1.0, 1.0), (1, 256, 256), {}, {"omnia"}),
        ("61 labels", (1.0, 1.0, 1.0), (100, 100, 100), {"labels": 61}, {"omnia", "dx"}),
        ("a liver CT", (1.0, 0.767, 0.767), (432, 512, 512), {"channels": ("CT",)}, {"omnia", "dx", "dx_lowres"}),
    ],
)
def test_unusual_datasets(
    numbers: Callable[..., Any], what: str, spacing: Any, shape: Any, changes: dict[str, Any], names: set[str]
) -> None:
    assert set(planned(numbers(spacing, shape, **changes)).configurations) == names, what


def test_a_coarser_configuration_shows_a_quarter_or_all_that_fits(numbers: Callable[..., Any]) -> None:
    plan = planned(numbers((1.0, 0.767, 0.767), (432, 512, 512)))
    fine, coarse = plan.configurations["dx"], plan.configurations["dx_lowres"]
    assert np.prod(fine.patch_size) < 0.25 * np.prod(fine.median_shape)
    assert np.prod(coarse.patch_size) > 0.2 * np.prod(coarse.median_shape)
    assert all(c > f for c, f in zip(coarse.spacing, fine.spacing, strict=True))


def test_volumes_cannot_be_planned_from_slices(numbers: Callable[..., Any]) -> None:
    with pytest.raises(UserError, match="2D images"):
        dx.plan(*numbers((1.0, 1.0, 1.0), (1, 256, 256)), options())


def test_channel_names_choose_the_normalisation(numbers: Callable[..., Any]) -> None:
    plan = planned(numbers((1.0, 1.0, 1.0), (40, 60, 50), channels=("CT", "T1", "noNorm")))
    assert [entry.scheme for entry in plan.normalization] == ["ct", "zscore", "nonorm"]
    assert any("nonorm" in note for note in plan.notes)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real datasets are not beside this checkout")
@pytest.mark.parametrize(
    ("name", "configuration"),
    [("Dataset004_Hippocampus", "dx"), ("Dataset045_SunnybrookLV", "omnia"), ("Dataset046_SunnybrookSlices", "omnia")],
)
def test_real_datasets(name: str, configuration: str) -> None:
    dataset = load_dataset(SHARED / name)
    plan = auto.plan(dataset, extract(dataset, processes=2)[0], options())
    assert plan.decision.configuration == configuration
    assert len(plan.decision.reasons) >= 2
