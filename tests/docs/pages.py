"""The project's Markdown pages and their fenced blocks, with the markers that say how a test treats a block.

A marker is a comment on a line of its own before a fence:

    <!-- test: skip install -->                   not run, for a known reason
    <!-- test: terminal until listening -->       runs until the scenario ends; the next block waits for that word
    <!-- test: watch until round-closed -->       runs until it has printed that, then Ctrl-C
    <!-- test: file learner.py -->                is written to that file of the clone
    <!-- test: insert PATH after LINE -->         is put into that file, after the line that begins so
    <!-- test: output -->                         is what the shell block before it prints
    <!-- test: output of metis demo -->           is what that command prints
    <!-- test: message Task -->                   is JSON of that class of services/messages.py
    <!-- test: scenario NAME needs torch -->      anywhere: a new clone from here on; it needs that module or program
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MARKER = re.compile(r"^ *<!-- test: (?P<verb>\w+)(?: (?P<rest>.+?))? -->$")
OPENING = re.compile(r"^(?P<indent> *)```(?P<language>[\w-]*)$")
SHELL = ("bash", "sh")
VERBS = ("skip", "terminal", "watch", "file", "insert", "output", "message", "scenario")


@dataclass(frozen=True)
class Marker:
    """What a comment before a fence asks for."""

    verb: str
    rest: str

    @property
    def until(self) -> str | None:
        """The text that a block which goes on is waited for."""
        return self.rest.removeprefix("until ") if self.rest.startswith("until ") else None


@dataclass(frozen=True)
class Fence:
    """A fenced block."""

    page: str
    line: int
    language: str
    body: str
    marker: Marker | None
    scenario: str  # name of the scenario that it belongs to
    needs: tuple[str, ...]  # modules and programs that the scenario needs

    @property
    def verb(self) -> str | None:
        """Of its marker."""
        return self.marker.verb if self.marker else None

    @property
    def rest(self) -> str:
        """What its marker says after the verb."""
        return self.marker.rest if self.marker else ""

    @property
    def runs(self) -> bool:
        """Whether it takes part in a scenario."""
        return self.verb != "skip" and (self.language in (*SHELL, "python") or self.verb in ("file", "insert"))

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    """Every page that is the project's documentation."""
    top = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
    return [*top, *sorted((ROOT / "docs").rglob("*.md"))]


def name_of(page: Path) -> str:
    """The page as people name it."""
    return page.relative_to(ROOT).as_posix()


def fences(page: Path) -> list[Fence]:
    """The fenced blocks of a page, in order."""
    return list(_fences(name_of(page), page.read_text(encoding="utf-8")))


def all_fences() -> list[Fence]:
    """The fenced blocks of every page."""
    return [fence for page in pages() for fence in fences(page)]


def _fences(page: str, text: str) -> Iterator[Fence]:
    marker: Marker | None = None
    scenario: str = "page"
    needs: tuple[str, ...] = ()
    opened: tuple[int, str] | None = None
    indent = ""
    body: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        if opened is not None:
            if line == f"{indent}```":
                yield Fence(page, *opened, "\n".join(body) + "\n", marker, scenario, needs)
                opened, marker = None, None
            else:
                body.append(line.removeprefix(indent))
        elif found := OPENING.match(line):
            opened, indent, body = (number, found["language"]), found["indent"], []
        elif found := MARKER.match(line):
            marker = Marker(found["verb"], found["rest"] or "")
            if marker.verb == "scenario":
                scenario, _, wanted = marker.rest.partition(" needs ")
                needs, marker = tuple(wanted.split()), None
        elif line.strip():
            assert marker is None, f"{page}:{number}: the marker before this line belongs to no fence"
    assert opened is None, f"{page}: a fence is left open"
    assert marker is None, f"{page}: no fence follows the last marker"


def table_under(page: str, heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its head; `\\|` is a bar, code marks are taken off."""
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    start = next(i for i, line in enumerate(lines) if line.lstrip("#").strip() == heading and line.startswith("#"))
    rows: list[list[str]] = []
    for line in lines[start + 1 :]:
        if line.startswith("|"):
            cells = re.split(r"(?<!\\)\|", line.strip().strip("|"))
            rows.append([cell.strip().replace("\\|", "|").replace("`", "") for cell in cells])
        elif rows or line.startswith("#"):
            break
    assert len(rows) > 2, f"{page}: no table below {heading!r}"
    return rows[2:]
