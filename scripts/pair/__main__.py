"""`python -m scripts.pair`, which `scripts/benchmarks pair` is: read the options, measure, show, save."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Self

from rich.console import Console

import scripts.pair

from . import interrupts
from .cases import DEFAULT_PARTS, PARTS, Case
from .comparison import CONFIDENCE, LEAST_PAIRS, LIMIT, Comparison
from .table import notes, table
from .turns import measure
from .worktrees import Failed, Tree, checked_out, commit_id, dependencies, differing, git

PROBE = ("--params", "1000", "--learners", "2", "--rounds", "1", "--no-floor")  # compiles the code, opens its files
FAILED = 3
DEFAULT = ", ".join(DEFAULT_PARTS)
WIDTH = 160  # of the table in a pipe


@dataclass(frozen=True)
class Asked:
    """The options."""

    commit: str
    cases: tuple[Case, ...]
    pairs: int
    out: Path | None

    @classmethod
    def of(cls, arguments: Sequence[str]) -> Self:
        """Read and check them; wrong ones end the program with status 2."""
        at = arguments.index("--") if "--" in arguments else len(arguments)
        typed, own = arguments[:at], tuple(arguments[at + 1 :])
        parser = argparse.ArgumentParser(
            prog="scripts/benchmarks pair",
            usage="%(prog)s [--pairs N] [--out FILE.json] COMMIT [PART ... | -- OPTIONS OF metis bench]",
            description=scripts.pair.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        parser.add_argument("commit", metavar="COMMIT", help="the other commit: anything that git knows it by")
        parser.add_argument("part", metavar="PART", nargs="*", help=f"{', '.join(PARTS)}; default {DEFAULT}")
        parser.add_argument("--pairs", metavar="N", type=int, default=LEAST_PAIRS, help="turns; default %(default)s")
        parser.add_argument("--out", metavar="FILE.json", type=Path, help="save every number; from the checkout's root")
        given = parser.parse_intermixed_args(typed)
        if unknown := [part for part in given.part if part not in PARTS]:
            parser.error(f"{' '.join(unknown)}: there are the parts {', '.join(PARTS)}")
        if own and given.part:
            parser.error("parts, or a case of your own after --, not both")
        if given.pairs < LEAST_PAIRS:
            parser.error(f"--pairs {given.pairs}: at least {LEAST_PAIRS} are needed")
        if given.out and not given.out.absolute().parent.is_dir():
            parser.error(f"--out {given.out}: there is no folder {given.out.parent}")
        try:
            commit = commit_id(given.commit)
        except Failed as error:
            parser.error(str(error))
        parts = dict.fromkeys(given.part or DEFAULT_PARTS)
        cases = (Case(" ".join(own), own),) if own else tuple(case for part in parts for case in PARTS[part])
        return cls(commit, cases, given.pairs, given.out)


def main(arguments: Sequence[str]) -> int:
    """Entry point; the exit status."""
    asked = Asked.of(arguments)
    try:
        with interrupts.signals_stop():
            return run(asked)
    except (Failed, subprocess.TimeoutExpired) as error:
        print(f"scripts/benchmarks pair: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("scripts/benchmarks pair: interrupted", file=sys.stderr)
        return interrupts.STATUS


def run(asked: Asked) -> int:
    """Measure and show; the exit status. Raises Failed."""
    console, progress = Console(), Console(stderr=True)
    if not console.is_terminal:
        console.width = WIDTH
    show = partial(console.print, markup=False, highlight=False, soft_wrap=True)
    load = os.getloadavg()
    with checked_out(commit_id("HEAD"), asked.commit) as trees, progress.status("checking both commits") as status:
        show(f"this:  {trees[0].told}\nother: {trees[1].told}")
        if git("status", "--porcelain", "--untracked-files=no"):
            show("Changes that are not committed are not measured.")
        if differ := differing(*(dependencies(tree.folder) for tree in trees)):
            show(f"They want other packages ({', '.join(differ)}); both run with those that are installed here.")
        for tree in trees:
            tree.check_code()
            tree.bench(PROBE)

        def tell(text: str) -> None:
            if progress.is_terminal:
                status.update(text)
            else:
                print(text, file=sys.stderr, flush=True)

        compared, untold = measure(trees, asked.cases, asked.pairs, tell)
        found = document(trees, asked.pairs, compared, untold, load)
    if asked.out:
        asked.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    console.print(table(compared, console))
    show("\n".join([*notes(compared, untold), f"load averages {found['load_before']} to {found['load_after']}"]))
    return int(any(one.verdict == "worse" for one in compared))


def document(
    trees: tuple[Tree, Tree], pairs: int, compared: Sequence[Comparison], untold: Sequence[str], load: Sequence[float]
) -> dict[str, Any]:
    """What `--out` saves."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "this": {"commit": trees[0].commit, "told": trees[0].told},
        "other": {"commit": trees[1].commit, "told": trees[1].told},
        "dependencies_differ": differing(*(dependencies(tree.folder) for tree in trees)),
        "pairs": pairs,
        "limit": LIMIT,
        "confidence": CONFIDENCE,
        "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, {platform.python_version()}",
        "load_before": [round(value, 2) for value in load],
        "load_after": [round(value, 2) for value in os.getloadavg()],
        "compared": [one.as_json() for one in compared],
        "not_compared": list(untold),
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
