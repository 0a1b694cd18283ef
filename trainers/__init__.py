"""From a plan and preprocessed cases to checkpoints: sampling, augmentation, loss, training loop, validation."""

import logging

# Lightning reports every process it starts and the precision it was given.
logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
