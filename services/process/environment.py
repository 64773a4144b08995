"""What the environment and the command line of a process name: secrets, and Python code by `module:attribute`."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Any


def secret(*variables: str) -> str | None:
    """The first of these variables that is set, itself or as `<variable>_FILE`, the path of a file that holds it.

    Raises ValueError naming the variable, the file and what is wrong with it; never the secret.
    """
    for variable in variables:
        if value := os.environ.get(variable):
            return value
        if path := os.environ.get(f"{variable}_FILE"):
            try:
                return secret_of_file(path)
            except ValueError as error:
                raise ValueError(f"{variable}_FILE: {error}") from error
    return None


def secret_of_file(path: str | Path) -> str:
    """The secret in a file, without the white space around it. Raises ValueError naming the file."""
    try:
        text = Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a text file") from error
    if not text:
        raise ValueError(f"{path}: the file is empty")
    return text


SWITCHES = {
    **dict.fromkeys(("1", "true", "t", "yes", "y", "on"), True),
    **dict.fromkeys(("", "0", "false", "f", "no", "n", "off"), False),
}


def switched_on(variable: str) -> bool:
    """Whether a variable of the environment says yes, in one of the words that the commands take too.

    Raises ValueError for any other word.
    """
    told = os.environ.get(variable, "").strip().lower()
    if told not in SWITCHES:
        raise ValueError(f"{variable}: write true or false")
    return SWITCHES[told]


def code_named(spec: str, example: str) -> Any:
    """What `module:attribute` names; the working directory is importable. Never called with a word from the network.

    Raises ValueError, with an `example` of what to write, for a spec of another form; ImportError and AttributeError.
    """
    module, _, attribute = spec.partition(":")
    if not module or not attribute:
        raise ValueError(f"write it as module:factory, for example {example}")
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    return getattr(importlib.import_module(module), attribute)
