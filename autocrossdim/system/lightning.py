"""Lightning's Fabric, without its remarks about processes and precision."""

import logging

from lightning_fabric import Fabric

logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # importing it sets INFO

__all__ = ["Fabric"]
