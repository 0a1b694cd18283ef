"""Typed files on disk: plan, fingerprint, checkpoint, best and the paths of a workspace."""
