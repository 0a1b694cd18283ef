"""From a fingerprint to a plan: target spacing, 2D or 3D, network topology, memory, patch and batch size."""
