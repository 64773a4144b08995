"""What a run leaves at the driver: its results with the driver's own scores, the final model, the best one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services import messages as m
from services.errors import NotFound
from services.rest import Client

from .. import files
from ..show import Display, View, words
from .evaluation import Scorer


@dataclass(frozen=True)
class Outputs:
    """Where the results go; None leaves that file out."""

    results: str | Path | None = None
    model: str | Path | None = None
    best: str | Path | None = None

    def check(self) -> None:
        """Raise OSError for a path that cannot be written, before a run is spent on it."""
        for path in (self.results, self.model, self.best):
            if path is not None:
                files.check_writable(path)

    def write_results(self, results: dict[str, Any], note: Callable[[str], None]) -> None:
        """Write the results."""
        if self.results is not None:
            files.write_json(self.results, results)
            note(f"results: {self.results}")

    async def write_models(self, client: Client, run_id: str, note: Callable[[str], None]) -> None:
        """Download and write the models that were asked for; a run without one says so."""
        for which, path in (("latest", self.model), ("best", self.best)):
            if path is not None:
                await _write_model(client, run_id, which, path, note)


async def collect(client: Client, view: View, scorer: Scorer, outputs: Outputs, display: Display) -> dict[str, Any]:
    """Fetch the results of the run, score what is not scored yet, write the files; returns what `out` holds."""
    results = await client.results(view.run.id)
    view.conclude(results)
    await _score_the_rest(scorer, results, display)
    collected, told = _with_scores(results, scorer, view), list[str]()
    outputs.write_results(collected, told.append)  # before anything is drawn: that must not cost the results
    display.end(view, results)
    for line in told:
        display.note(line)
    await outputs.write_models(client, results.run.id, display.note)
    return collected


def _with_scores(results: m.Results, scorer: Scorer, view: View) -> dict[str, Any]:
    collected = results.model_dump(mode="json")
    if scorer.active or view.central:
        collected["central_metrics"] = {str(number): view.central[number] for number in sorted(view.central)}
    if scorer.errors:
        collected["central_errors"] = {str(number): why for number, why in sorted(scorer.errors.items())}
    return collected


async def _score_the_rest(scorer: Scorer, results: m.Results, display: Display) -> None:
    for made in results.rounds:
        scorer.offer(made.round, made.model)
    if scorer.pending:
        display.note(f"waiting for evaluate() of {words.plural(scorer.pending, 'model')}")
    await scorer.finish()
    for number, why in sorted(scorer.errors.items()):
        display.note(f"evaluate() gave no score for round {number}: {why}")


async def _write_model(client: Client, run_id: str, which: str, path: str | Path, note: Callable[[str], None]) -> None:
    try:
        document = await client.run_model(run_id, which)
    except NotFound as error:
        note(f"no {which} model: {error.detail}")
        return
    await asyncio.to_thread(files.write, path, document)
    note(f"{which} model: {path} ({words.size(len(document))})")
