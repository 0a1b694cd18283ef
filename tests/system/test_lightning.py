import logging

import trainers.launch  # noqa: F401


def test_lightning_only_warns() -> None:
    assert logging.getLogger("lightning_fabric").getEffectiveLevel() == logging.WARNING
