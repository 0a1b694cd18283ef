"""From a plan and a store to checkpoints: sampling, augmentation, loss, loop, folds."""
