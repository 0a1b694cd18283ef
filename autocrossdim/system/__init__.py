"""Errors, atomic files, console, processes, devices, registry and templates: what every other part relies on."""
