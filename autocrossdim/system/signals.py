"""Signals that ask a process to stop."""

import signal

# What job schedulers send before they take a machine away; Windows has no SIGUSR1.
REQUESTS = tuple(signal.Signals[name] for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name))
