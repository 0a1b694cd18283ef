"""From a fingerprint to a plan: spacing, 2D or 3D, topology, memory, patch and batch."""
