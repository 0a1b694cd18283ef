import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autocrossdim.records.labels import Labels
from autocrossdim.records.normalization import Normalization
from autocrossdim.records.plan import Configuration, Cost, Decision, Memory, Plan
from autocrossdim.system.errors import UserError


def example() -> Plan:
    common = {
        "median_shape": (20, 60, 50),
        "batch_size": 2,
        "encoder": "efficientnet_b0",
        "memory": Memory(budget_bytes=2**30, estimated_bytes=2**29, inference_bytes=2**28),
        "cost": Cost(multiply_adds_per_case=10**9),
    }
    return Plan(
        dataset="Dataset901_X",
        dims=3,
        channel_names=("MRI",),
        labels=Labels.from_dataset_json({"background": 0, "a": 1}, None),
        file_ending=".nii.gz",
        transpose=(2, 0, 1),
        normalization=(Normalization(scheme="zscore"),),
        decision=Decision(
            anisotropy=4.0, threshold=3.0, configuration="omnia", alternatives=("dx",), reasons=("Thick slices.",)
        ),
        configurations={
            "omnia": Configuration(
                name="omnia",
                dims=2,
                spacing=(1.0, 0.5),
                patch_size=(64, 64),
                strides=((2, 2),) * 3,
                kernel_sizes=((3, 3),) * 4,
                slices=3,
                **common,  # type: ignore[arg-type]
            ),
            "dx": Configuration(
                name="dx",
                dims=3,
                spacing=(4.0, 1.0, 0.5),
                patch_size=(20, 64, 64),
                strides=((1, 2, 2),) * 3,
                kernel_sizes=((1, 3, 3),) * 4,
                **common,  # type: ignore[arg-type]
            ),
        },
    )


def test_a_plan_comes_back_from_its_file(tmp_path: Path) -> None:
    example().write(tmp_path / "plan.json")
    assert Plan.read(tmp_path / "plan.json") == example()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 0}, "version 0.*reads version 2.*--overwrite"),
        ({"transpose": "sideways"}, "transpose"),
        ({"extra": 1}, "extra"),
        ({"configurations": {"omnia": {}}}, "configurations.omnia"),
    ],
)
def test_other_versions_and_damaged_plans_are_refused_in_one_line(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(json.loads(example().model_dump_json()) | change))
    with pytest.raises(UserError, match=message) as caught:
        Plan.read(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_2d_configuration_leaves_the_slices_where_they_are() -> None:
    omnia, dx = example().configuration("omnia"), example().configuration("dx")
    assert omnia.target_spacing((7.0, 2.0, 2.0)) == (7.0, 1.0, 0.5)
    assert omnia.patch_shape == (1, 64, 64)
    assert dx.target_spacing((7.0, 2.0, 2.0)) == (4.0, 1.0, 0.5)
    assert dx.patch_shape == (20, 64, 64)


def test_the_network_sees_neighbouring_slices_as_channels() -> None:
    plan = example()
    assert plan.network_plan(plan.configuration("omnia")).in_channels == 3
    assert plan.network_plan(plan.configuration("dx")).in_channels == 1


def test_an_unknown_configuration_names_the_known_ones() -> None:
    with pytest.raises(UserError, match="'dxx'; it has dx, omnia"):
        example().configuration("dxx")
    with pytest.raises(UserError, match="nnU-Net's '3d_fullres' is called 'dx'"):
        example().configuration("3d_fullres")


def test_planning_again_at_another_speed_is_the_same_configuration() -> None:
    dx = example().configuration("dx")
    other_cost = dx.model_copy(update={"cost": Cost(multiply_adds_per_case=1, seconds_per_epoch=9.0)})
    assert dx.differing_fields(other_cost) == []
    assert dx.differing_fields(dx.model_copy(update={"batch_size": 4})) == ["batch_size"]


def test_differences_name_what_makes_two_plans_incompatible(make_plan: Callable[..., Any]) -> None:
    plan = make_plan()
    swapped = make_plan(labels=Labels.from_dataset_json({"background": 0, "block": 2, "other": 1}))
    assert plan.differences(plan, ["dx"]) == []
    assert plan.differences(swapped, ["dx"]) == ["labels"]
    assert plan.differences(make_plan(spacing=(2, 1, 1)), ["dx"]) == ["configuration dx (spacing)"]
    assert plan.differences(make_plan(normalization=(Normalization(scheme="zscore"),)), []) == ["normalisation"]
    assert plan.differences(make_plan(2), ["dx"]) == ["configuration dx (in one plan only)"]


def test_regions_in_another_order_are_a_difference(make_plan: Callable[..., Any]) -> None:
    """Each region is an output of the network, in the order of dataset.json."""
    one, other = {"whole": [1, 2], "core": [2]}, {"core": [2], "whole": [1, 2]}
    plans = [make_plan(labels=Labels.from_dataset_json(regions, [1, 2])) for regions in (one, other)]
    assert plans[0].differences(plans[1], ["dx"]) == ["labels"]


def test_intensities_that_the_scheme_does_not_use_are_no_difference(make_plan: Callable[..., Any]) -> None:
    before, after = (make_plan(normalization=(Normalization(scheme="zscore", mean=mean),)) for mean in (1, 2))
    assert before.differences(after, ["dx"]) == []
    ct = [make_plan(normalization=(Normalization(scheme="ct", mean=mean),)) for mean in (1, 2)]
    assert ct[0].differences(ct[1], ["dx"]) == ["normalisation"]
