"""The studies: for each question, the arms that answer it."""

from collections.abc import Collection
from dataclasses import replace

from autocrossdim.networks.weights import tags
from autocrossdim.studies.comparison import compare_arms
from autocrossdim.studies.convergence import compare_starts
from autocrossdim.studies.crossing import compare_ratios
from autocrossdim.studies.design import Arm, Request, Study
from autocrossdim.studies.learning_curve import doubling_sizes, learning_curve
from autocrossdim.system.errors import UserError

RANDOM = "random"
SLICINGS = (1, 2, 3, 4, 6)  # slices averaged into one
RULES = ("center", "average", "replicate", "acs")


def _weights(request: Request) -> list[Arm]:
    """Random weights, each of the pretrained ones, for DX-Net a trained Omnia-Net, and a plain U-Net as a baseline.

    DX-Net starts from random weights or from the inflated encoder itself. Otherwise it would train its 2D twin first,
    and all arms would start from a trained 2D network.
    """
    settings = {"slices_first": False} if request.config.startswith("dx") else {}
    arms = [Arm(RANDOM, request.config, RANDOM, settings=settings)]
    arms += [
        Arm(_short(weights), request.config, weights, settings=settings)
        for weights in request.weights
        if weights != RANDOM
    ]
    if request.config == "dx":
        # Both trainings share the budget, so that this arm gets as much as the others.
        first = next((arm.weights for arm in arms[1:]), RANDOM)
        arms.append(Arm("Omnia-Net first", "dx", "omnia", first=first))
    return [*arms, Arm("U-Net", "unet", RANDOM, planner="unet")]


def _starts(request: Request) -> list[Arm]:
    """The arms of `weights`. Held-out patches are scored during training, so they must not shorten it."""
    return [replace(arm, settings={**arm.settings, "patience": 0}) for arm in _weights(request)]


def _inflation(request: Request) -> list[Arm]:
    """Every rule, from the pretrained encoder alone and from the trained 2D twin of the network."""
    weights, twin, encoder = request.weights[0], {"slices_first": True}, {"slices_first": False}
    plans = {rule: {"inflation": rule} for rule in RULES}
    return [
        *(Arm(f"{rule}, 2D twin", "dx", weights, plan=plans[rule], settings=twin) for rule in RULES),
        *(Arm(f"{rule}, encoder", "dx", weights, plan=plans[rule], settings=encoder) for rule in RULES),
        Arm("random, 2D twin", "dx", RANDOM, plan=plans["center"], settings=twin),
        Arm("random", "dx", RANDOM, plan=plans["center"], settings=encoder),
    ]


def _dimensions(request: Request) -> list[Arm]:
    """Networks that work slice by slice and in 3D, and averages of their probabilities."""
    weights, one = request.weights[0], {"slices": 1}
    return [
        Arm("Omnia-Net", "omnia", weights, plan=one, probabilities=True),
        Arm("Omnia-Net, 3 slices", "omnia", weights, plan={"slices": 3}),
        Arm("DX-Net", "dx", weights, plan=one, probabilities=True),
        Arm("DS-Net", "ds", weights, planner="ds", plan=one, probabilities=True),
        # With the weights of their members: an average of runs from other weights is outdated.
        Arm("Omnia-Net + DX-Net", None, weights, plan=one, members=("Omnia-Net", "DX-Net")),
        Arm("Omnia-Net + DX-Net + DS-Net", None, weights, plan=one, members=("Omnia-Net", "DX-Net", "DS-Net")),
    ]


def _ratios(request: Request) -> list[Arm]:
    """The 2D and the 3D network."""
    return [Arm("Omnia-Net", "omnia", request.weights[0]), Arm("DX-Net", "dx", request.weights[0])]


def _one(request: Request) -> list[Arm]:
    """One way to train, of which only the number of cases varies."""
    return [Arm(request.config, request.config, request.weights[0])]


def choose_arms(
    study: Study,
    request: Request,
    *,
    options: Collection[str] = (),
    settings: Collection[str] = (),
    wanted: Collection[str] = (),
) -> list[Arm]:
    """Return the arms of a study that are to be run.

    Args:
        study: The study.
        request: What it is built from.
        options: Names of the plan options that the user gave, and "config" if the user gave a configuration.
        settings: Names of the training settings that the user gave.
        wanted: Names of the arms to run; all if empty.

    Raises:
        UserError: An arm does not exist, the study itself chooses the value of an option, or it uses only one of
            several starting weights.
    """
    arms = study.arms(request)
    names = [arm.name for arm in arms]
    fixed = {name for arm in arms for name in arm.plan} | (set() if study.any_config else {"config"})
    given = [f"--{name.replace('_', '-')}" for name in sorted(fixed & set(options))]
    fixed = {name for arm in arms for name in arm.settings} | {"seed"}
    given += [f"--set {name}" for name in sorted(fixed & set(settings))]
    if given:
        raise UserError(f"{given[0]}: the study '{study.name}' sets this value itself. Omit the option.")
    if len(request.weights) > 1 and not study.several_weights:
        raise UserError(
            f"--weights: the study '{study.name}' uses one, but there are {len(request.weights)}. Give one, or "
            "compare them with `autocrossdim study weights`."
        )
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"--weights: several are called {repeated[0]}. Rename the files, or give each once.")
    if unknown := sorted(set(wanted) - set(names)):
        raise UserError(f"--arm '{unknown[0]}': the study '{study.name}' has no such arm. Arms: {'; '.join(names)}.")
    chosen = [arm for arm in arms if not wanted or arm.name in wanted]
    for arm in chosen:
        if missing := [name for name in arm.members if wanted and name not in wanted]:
            raise UserError(f"--arm '{arm.name}' averages '{missing[0]}'. Add --arm '{missing[0]}'.")
    return chosen


def default_weights(encoder: str) -> tuple[str, ...]:
    """Return the kinds of pretrained weights that timm has for an encoder."""
    return tuple(word for word in ("imagenet", "noisy_student") if tags(word, encoder)) or ("imagenet",)


def _short(weights: str) -> str:
    """Return starting weights as tables name them: a path by its last part."""
    return weights.replace("\\", "/").rstrip("/").rpartition("/")[2] or weights


STUDIES = {
    study.name: study
    for study in (
        Study(
            "weights",
            "How much do pretrained weights help?",
            _weights,
            compare_arms,
            any_config=True,
            several_weights=True,
        ),
        Study(
            "inflation",
            "Which rule for turning 2D weights into 3D weights is best, and does it matter where they come from?",
            _inflation,
            compare_arms,
            volumes=True,
        ),
        Study(
            "2d3d", "Does a 2D or a 3D network segment these volumes better?", _dimensions, compare_arms, volumes=True
        ),
        Study(
            "anisotropy",
            "At what slice spacing does a 2D network become better than a 3D network?",
            _ratios,
            compare_ratios,
            slicings=SLICINGS,
            volumes=True,
        ),
        Study(
            "cases",
            "How much would more annotated cases help?",
            _one,
            learning_curve,
            sizes=doubling_sizes,
            any_config=True,
        ),
        Study(
            "convergence",
            "Do pretrained weights only speed up training, or do they also improve its result?",
            _starts,
            compare_starts,
            curves=True,
            any_config=True,
            several_weights=True,
        ),
    )
}
