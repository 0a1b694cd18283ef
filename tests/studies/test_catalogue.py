import pytest

from autocrossdim.studies.catalogue import STUDIES, choose_arms, default_weights
from autocrossdim.studies.design import Request
from autocrossdim.system.errors import UserError

DX = Request(config="dx", weights=("imagenet",))
TWO = Request(config="dx", weights=("imagenet", "folder/own.pth"))


def names(study, request=DX, **options):
    return [arm.name for arm in choose_arms(STUDIES[study], request, **options)]


def test_weights_are_named_by_their_file_and_compared_with_random_ones():
    assert names("weights", TWO) == ["random", "imagenet", "own.pth", "Omnia-Net first", "U-Net"]
    assert choose_arms(STUDIES["weights"], TWO)[-2].first == "imagenet"
    assert choose_arms(STUDIES["weights"], Request(config="dx", weights=("random",)))[-2].first == "random"
    assert names("weights", Request(config="omnia", weights=("imagenet",))) == ["random", "imagenet", "U-Net"]


@pytest.mark.parametrize("study", ["weights", "convergence"])
def test_only_the_arm_that_is_called_so_starts_dx_from_a_trained_2d_network(study):
    arms = choose_arms(STUDIES[study], DX)
    from_2d = [arm.name for arm in arms if arm.config == "dx" and arm.settings.get("slices_first") is not False]
    assert from_2d == ["Omnia-Net first"]
    with pytest.raises(UserError, match=rf"--set slices_first: the study '{study}' sets this value itself"):
        choose_arms(STUDIES[study], DX, settings=["slices_first"])
    flat = choose_arms(STUDIES[study], Request(config="omnia", weights=("imagenet",)), settings=["slices_first"])
    assert not any("slices_first" in arm.settings for arm in flat)


def test_the_papers_network_can_be_compared_with_a_plain_unet():
    network, unet = choose_arms(STUDIES["weights"], DX, options=["network"], wanted=["imagenet", "U-Net"])
    assert (network.planner, network.config, network.weights) == ("auto", "dx", "imagenet")
    assert (unet.planner, unet.config, unet.weights) == ("unet", "unet", "random")


def test_inflation_rules_start_from_the_encoder_and_from_the_twin():
    arms = choose_arms(STUDIES["inflation"], DX)
    assert len({(arm.weights, arm.plan["inflation"], arm.settings["slices_first"]) for arm in arms}) == len(arms) == 10


def test_ensembles_come_after_their_members_whose_probabilities_are_kept():
    for study in STUDIES.values():
        before = set()
        arms = choose_arms(study, DX)
        kept = {arm.name for arm in arms if arm.probabilities}
        for arm in arms:
            assert set(arm.members) <= before
            assert set(arm.members) <= kept
            before.add(arm.name)


def test_ensembles_of_other_weights_are_other_runs():
    arms = choose_arms(STUDIES["2d3d"], Request(config="dx", weights=("own.pth",)))
    assert {arm.weights for arm in arms} == {"own.pth"}


def test_only_some_arms_can_be_run():
    assert names("2d3d", wanted=["DX-Net", "Omnia-Net"]) == ["Omnia-Net", "DX-Net"]


@pytest.mark.parametrize(
    ("study", "options", "message"),
    [
        ("2d3d", {"wanted": ["U-Net"]}, "no such arm. Arms: Omnia-Net; Omnia-Net, 3 slices; DX-Net"),
        ("2d3d", {"wanted": ["Omnia-Net", "Omnia-Net + DX-Net"]}, "averages 'DX-Net'"),
        ("inflation", {"options": ["inflation"]}, "--inflation: the study 'inflation' sets this value itself"),
        ("inflation", {"settings": ["epochs", "slices_first"]}, "--set slices_first: the study 'inflation' sets this"),
        ("convergence", {"settings": ["patience"]}, "--set patience: the study 'convergence' sets this"),
        ("cases", {"settings": ["seed"]}, "--set seed: the study 'cases' sets this"),
        *((study, {"options": ["config"]}, "--config: the study") for study in ("inflation", "2d3d", "anisotropy")),
        *((study, {"request": TWO}, "uses one, but there are 2") for study in ("inflation", "2d3d", "cases")),
        ("weights", {"request": Request("dx", ("a/x.pth", "b/x.pth"))}, "several are called x.pth"),
    ],
)
def test_what_cannot_be_run_is_refused(study, options, message):
    with pytest.raises(UserError, match=message):
        names(study, **options)


@pytest.mark.parametrize("study", ["weights", "cases", "convergence"])
def test_what_a_study_leaves_open_may_be_given(study):
    assert names(study, options=["config", "slices"], settings=["epochs", "learning_rate"])


def test_noisy_student_weights_are_compared_where_the_encoder_has_them():
    assert default_weights("tf_efficientnet_b0") == ("imagenet", "noisy_student")
    assert default_weights("resnet18") == ("imagenet",)
    assert default_weights("test_efficientnet") == ("imagenet",)
