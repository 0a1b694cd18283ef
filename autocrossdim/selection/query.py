"""Query methods: each ranks the unlabelled scans for every place of the list of scans to annotate."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from autocrossdim.records.suggestions import MethodName, ScanMeasures
from autocrossdim.system.text import counted

STRATIFIED, OF = 2, 3
"""Two of three places are chosen by the entropy of one label (ClaSP PE, Lüth et al., TMLR 2026)."""
FULL_NOISE = 4  # annotated patients up to which the noise is as large as the differences between scans; our choice


@dataclass(frozen=True)
class RankedScan:
    """A scan in the ranking for one place.

    Attributes:
        case: Name of the scan.
        why: Why it would be chosen.
    """

    case: str
    why: str


Ranking = Sequence[RankedScan]
Method = Callable[[Sequence[ScanMeasures], int, np.random.Generator], Iterator[Ranking]]
"""Scans, number of annotated patients and random numbers -> the rankings for places 1, 2, and so on. Every ranking
contains every scan, the best one first."""

METHODS: dict[MethodName, Method] = {}
"""Query methods by name."""


def query_method(name: MethodName) -> Callable[[Method], Method]:
    """Register the decorated function as a query method."""

    def register(method: Method) -> Method:
        METHODS[name] = method
        return method

    return register


@query_method("random")
def random_choice(scans: Sequence[ScanMeasures], annotated: int, random: np.random.Generator) -> Iterator[Ranking]:
    """Draw scans at random."""
    ranking = [RankedScan(scans[index].case, "drawn at random") for index in random.permutation(len(scans))]
    while True:
        yield ranking


@query_method("stratified")
def stratified_entropy(scans: Sequence[ScanMeasures], annotated: int, random: np.random.Generator) -> Iterator[Ranking]:
    """Prefer scans about which the model is uncertain: for two of three places in one label, each in turn.

    This follows ClaSP PE (Lüth et al., TMLR 2026), which chooses patches, for whole scans. Entropies of scans differ
    by far less than those of patches, so their logarithms are standardised before noise is added. The noise is
    Gumbel's, as in power sampling (Kirsch et al., 2021), and decreases with the number of annotated patients.
    """
    noise = min(1.0, FULL_NOISE / max(annotated, 1))
    names = dict.fromkeys(name for scan in scans for name in scan.label_entropy)
    by_label = {name: [scan for scan in scans if name in scan.label_entropy] for name in names}
    # The label with the highest entropy comes first.
    order = sorted(names, key=lambda name: -float(np.mean([scan.label_entropy[name] for scan in by_label[name]])))
    place, turn = 0, 0
    while True:
        overall = _ranked(scans, [scan.entropy for scan in scans], "overall", noise, random)
        if place % OF < STRATIFIED and order:
            name = order[turn % len(order)]
            found = by_label[name]
            first = _ranked(found, [scan.label_entropy[name] for scan in found], f"in '{name}'", noise, random)
            cases = {each.case for each in first}
            yield [*first, *(each for each in overall if each.case not in cases)]
            turn += 1
        else:
            yield overall
        place += 1


def _ranked(
    scans: Sequence[ScanMeasures], entropies: Sequence[float], where: str, noise: float, random: np.random.Generator
) -> list[RankedScan]:
    values = np.log(np.maximum(entropies, 1e-12))
    scores = (values - values.mean()) / max(float(values.std()), 1e-12)
    scores = scores + noise * random.gumbel(size=len(scores))
    ranks = 1 + (values[:, None] < values[None]).sum(axis=1)
    return [
        RankedScan(
            scans[index].case,
            f"entropy {where} {entropies[index]:.3g} nats per voxel, rank {ranks[index]} of "
            f"{counted(len(scans), 'scan')}",
        )
        for index in np.argsort(-scores, kind="stable")
    ]
