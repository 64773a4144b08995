"""The parts that a run may be made of, as text for a terminal and as tables for a page."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from services.catalogue import Entry

from .tables import columns


def listed(entries: Sequence[Entry]) -> str:
    """A line a part, key by key."""
    return "\n\n".join(
        f"{key}\n" + _indented(columns([[one.name, _told(one)] for one in group], flush_right=False))
        for key, group in groupby(entries, key=lambda one: one.key)
    )


def described(entries: Sequence[Entry]) -> str:
    """Each part with its parameters."""
    return "\n\n".join(map(_described, entries))


def _described(entry: Entry) -> str:
    head = f"{entry.name}  ({entry.key})\n{_told(entry)}"
    if not entry.settings:
        return f"{head}\n\n  it takes no parameters"
    rows = [[one.key, one.default, one.range, one.meaning] for one in entry.settings]
    return f"{head}\n\n{_indented(columns([['key', 'default', 'may be', 'meaning'], *rows], flush_right=False))}"


def markdown(entries: Sequence[Entry]) -> str:
    """A table of the parts and one of their parameters, for each key."""
    tables = []
    for key, group in groupby(entries, key=lambda one: one.key):
        parts = list(group)
        rows = [[f"`{one.name}`", one.meaning, one.source] for one in parts]
        tables.append(_table(f"`{key}`", ["", "source"], rows))
        given = [[f"`{one.name}`", f"`{s.key}`", s.default, s.range, s.meaning] for one in parts for s in one.settings]
        if given:
            tables.append(_table("of", ["key", "default", "may be", "meaning"], given))
    return "\n\n".join(tables)


def _table(first: str, others: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [[first, *others], ["---"] * (len(others) + 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _told(entry: Entry) -> str:
    return f"{entry.meaning} ({entry.source})" if entry.source else entry.meaning


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
