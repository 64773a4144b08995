"""The end of a run at the driver: the results, with the driver's own scores, and the files that were asked for."""

from __future__ import annotations

from typing import Any

from services import messages as m
from services.rest import Client

from ..show import words
from ..show.display import Display
from ..show.view import View
from .evaluation import Scorer
from .outputs import Outputs


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
