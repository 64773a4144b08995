"""Rounds made again of what the folder of a controller holds, and what is told of them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.table import Table
from rich.text import Text

from services.config import RunConfig, canonical
from services.engine import Verdict, verify
from services.errors import InvalidConfig, InvalidRequest, UnknownRun
from services.federation import Manifest
from services.state import Aside, Kept, rows_of
from services.store import OnDisk

from ..show import words

STYLES = {"same": "green", "differs": "bold red", "not kept": "dim", "not made again": "yellow"}
SHOWN = slice(7, 19)  # of a digest, without its `sha256-`


@dataclass(frozen=True)
class Verified:
    """One round, and what came of it."""

    manifest: Manifest
    verdict: Verdict

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        told = {"verdict": self.verdict.state, "text": self.verdict.text, "updates": len(self.manifest.updates)}
        return {"round": self.manifest.round, **told, "parent": self.manifest.parent, "model": self.manifest.model}


@dataclass(frozen=True)
class Written:
    """What a controller wrote down of a run."""

    run_id: str
    config: str  # JSON, as it is stored
    manifests: list[Manifest]  # by round


def written(folder: Path, run: str) -> Written:
    """A run by id, or `latest`; raises UnknownRun, or InvalidConfig for a folder that cannot be read."""
    rows = rows_of(folder, "run", "manifest")
    try:
        runs = {row.key: json.loads(row.data or b"") for row in rows if row.kind == "run"}
        if not runs:
            raise UnknownRun(f"no run was started with the folder {folder}", id=run)
        key = max(runs, key=lambda one: float(runs[one]["started_at"])) if run == "latest" else run
        if key not in runs:
            raise UnknownRun(f"there is no run {key!r} in {folder}; known: {', '.join(runs)}", id=key)
        ours = [row.data or b"" for row in rows if row.kind == "manifest" and row.run == key]
        found = sorted((Manifest.model_validate_json(one) for one in ours), key=lambda one: one.round)
        RunConfig.model_validate(runs[key]["config"])
        return Written(key, canonical(runs[key]["config"]), found)
    except (ValidationError, ValueError, KeyError, TypeError) as error:
        raise InvalidConfig(f"{folder} does not hold the state of a federation: {error}") from error


def verified(folder: Path, of: Written, number: int | None = None) -> Iterator[Verified]:
    """Each round of a run, or one of them; what is made on the way is removed. Raises InvalidRequest for no round."""
    before = {one.round: one for one in of.manifests}
    chosen = [one for one in of.manifests if number in (None, one.round)]
    if number is not None and not chosen:
        raise InvalidRequest(f"run {of.run_id} made no model in round {number}; it made {len(before)}", got=number)
    for one in chosen:
        verdict = _verdict(folder, of, one, before.get(one.round - 1))
        if verdict.state == "differs":  # or it was dropped while it was looked at
            verdict = _verdict(folder, of, one, before.get(one.round - 1))
        yield Verified(one, verdict)


def _verdict(folder: Path, of: Written, manifest: Manifest, before: Manifest | None) -> Verdict:
    with tempfile.TemporaryDirectory(prefix="metis-verify-") as name:
        kept, own = Kept(folder, Path(name)), OnDisk(Path(name) / "made")
        return verify(manifest, before, of.config, kept.get, Aside(kept, own))


def table(found: list[Verified]) -> Table:
    """A line a round; neighbours of which equally much is gone share one."""
    shown = Table(box=None, pad_edge=False, header_style="dim")
    shown.add_column("round", justify="right")
    shown.add_column("updates", justify="right")
    for name in ("parent", "model"):
        shown.add_column(name, no_wrap=True)
    shown.add_column("verdict", overflow="fold")
    for _, some in groupby(found, key=_alike):
        rounds = list(some)
        first, last, verdict = rounds[0].manifest, rounds[-1].manifest, rounds[0].verdict
        shown.add_row(
            str(first.round) if first is last else f"{first.round}-{last.round}",
            str(len(first.updates)),
            first.parent[SHOWN],
            last.model[SHOWN],
            Text(verdict.text, style=STYLES[verdict.state]),
        )
    return shown


def summary(of: Written, found: list[Verified]) -> str:
    """All of it in a sentence."""
    counts = {state: sum(one.verdict.state == state for one in found) for state in STYLES}
    words_of = {"same": "recomputed and the same", "differs": "differ"}
    told = [f"{n} {words_of.get(state, state)}" for state, n in counts.items() if n or state in words_of]
    return f"run {of.run_id}, {words.plural(len(found), 'round')}: {', '.join(told)}"


def _alike(one: Verified) -> tuple[object, ...]:
    if one.verdict.state in ("not kept", "not made again"):
        return (one.verdict.text, len(one.manifest.updates))
    return (one.manifest.round,)
