"""One case, preprocessed in memory."""

from collections.abc import Callable

import numpy as np
import pytest

from autocrossdim.preprocessing.case import preprocess
from autocrossdim.records.plan import Plan
from autocrossdim.system.errors import UserError


def test_a_spacing_in_another_unit_is_refused_before_it_fills_the_memory(
    make_plan: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autocrossdim.preprocessing.case.total_memory", lambda: 2**30)
    plan = make_plan()
    image = np.ones((1, 8, 9, 10), np.float32)
    assert preprocess(image, (10, 10, 10), plan, plan.configuration()).image.shape == (1, 80, 90, 100)
    message = r"100 x 100 x 100 mm; the plan's is 1 x 1 x 1 mm, .* 800 x 900 x 1000 voxels, 2\.9 GB, which is more than"
    with pytest.raises(UserError, match=message):
        preprocess(image, (100, 100, 100), plan, plan.configuration())
