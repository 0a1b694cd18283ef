from collections.abc import Callable, Mapping, Sequence

import pytest

from autocrossdim.records.study import CaseMetrics, StudyRun


@pytest.fixture
def make_runs() -> Callable[..., list[StudyRun]]:
    """Make the runs of an arm from its Dice: `make_runs("random", [[0.5, 0.6], [0.7, None]])`, a row per seed."""

    def build(
        arm: str, dice: Sequence[Sequence[float | None]], groups: Mapping[int, str] | None = None, **fields: object
    ) -> list[StudyRun]:
        defaults = {"size": 8, "options": {}, "anisotropy": 1.0, "configuration": "dx", "training_seconds": 60.0}
        defaults |= {"prediction_seconds": 1.0, "memory_bytes": 2**30, "steps": 10}
        return [
            StudyRun.model_validate(
                {
                    **defaults,
                    "arm": arm,
                    "seed": seed,
                    "cases": {
                        f"case_{number:03d}": CaseMetrics(
                            group=(groups or {}).get(number, f"case_{number:03d}"), dice=value, hd95=2.0, labels={}
                        )
                        for number, value in enumerate(row)
                    },
                    **fields,
                }
            )
            for seed, row in enumerate(dice)
        ]

    return build
