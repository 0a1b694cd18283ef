"""From a plan and preprocessed cases to checkpoints: sampling, augmentation, loss, training loop, validation."""
