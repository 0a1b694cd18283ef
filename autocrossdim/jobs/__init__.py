"""Commands as separate processes: side by side on this machine, or as jobs on a cluster."""

import json
import logging
import sys
from collections.abc import Mapping

from autocrossdim.system.console import logger


def command(name: str, *arguments: object, **options: object) -> list[str]:
    """Return the words that run `autocrossdim NAME ARGUMENTS --OPTION VALUE ...` with this Python.

    The command shows as many messages as this process (`-q`, `-v`). Options are as for `option_words`.
    """
    level = {logging.WARNING: ["-q"], logging.DEBUG: ["-v"]}.get(logger.level, [])
    return [sys.executable, "-m", "autocrossdim", *level, name, *map(str, arguments), *option_words(**options)]


def option_words(**options: object) -> list[str]:
    """Return options as words of a command line.

    None, False and () leave an option out, True is a switch, a sequence repeats it, and a mapping becomes NAME=VALUE
    pairs.
    """
    words: list[str] = []
    for key, value in options.items():
        option = "--" + key.replace("_", "-")
        if isinstance(value, Mapping):
            for field, content in value.items():
                words += [option, f"{field}={json.dumps(content)}"]
        elif isinstance(value, list | tuple):
            for content in value:
                words += [option, str(content)]
        elif value is True:
            words.append(option)
        elif value is not None and value is not False:
            words += [option, str(value)]
    return words
