"""Text from elsewhere as a terminal may show it: names, errors and words of others are no commands to it.

C0 and C1 controls begin escape sequences (ECMA-48); bidirectional marks let a line read otherwise than it is (Unicode
Standard Annex 9, and "Trojan Source", arXiv:2111.00169).
"""

from __future__ import annotations

import re
from collections.abc import MutableMapping
from typing import Any

BIDI = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
COMMANDS = re.compile(f"[\x00-\x1f\x7f-\x9f{BIDI}]")
BUT_LINES = re.compile(f"[\x00-\x08\x0b-\x1f\x7f-\x9f{BIDI}]")  # nor tabs
LONG = ("exception", "stack")  # entries of the log that have lines


def plain(text: str) -> str:
    """`text` with controls and bidirectional marks written out (`\\x1b`); its lines stay."""
    return BUT_LINES.sub(_written_out, text)


def plain_line(text: str) -> str:
    """The same for what is one line, or a part of one: it begins no other."""
    return COMMANDS.sub(_written_out, text)


def plain_entry(logger: Any, method: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor that does it to an entry's text, before a renderer for people."""
    for key, value in entry.items():
        if isinstance(value, str):
            entry[key] = plain(value) if key in LONG else plain_line(value)
    return entry


def _written_out(found: re.Match[str]) -> str:
    return repr(found[0])[1:-1]
