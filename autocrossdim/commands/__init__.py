"""The commands as Python functions: one file per command."""

COMMANDS = (
    "run",
    "convert",
    "verify",
    "plan",
    "plan_and_preprocess",
    "train",
    "predict",
    "ensemble",
    "evaluate",
    "find_best",
    "distil",
    "annotate_next",
    "report",
    "study",
    "export",
    "demo",
    "doctor",
)
"""Names of the commands, in the order of the help."""
