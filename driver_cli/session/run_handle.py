"""One run over one connection: reach the controller, begin or attach, follow, end, collect."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from services import messages as m
from services.errors import Conflict, FederationError, Unreachable
from services.failures import of_error
from services.rest import Client

from ..show import Display, View, words
from .connection import Connection
from .evaluation import Evaluate, Scorer
from .follower import Follower
from .results import Outputs, collect

PATIENCE_S = 60.0  # how long a controller that has answered may be gone
STOP_S = 15.0  # how long an interrupted driver waits for the run to stop


class RunHandle:
    """One run in the driver's hands. Used in `async with`, which holds the connection."""

    def __init__(
        self,
        to: Connection,
        display: Display,
        evaluate: Evaluate | None = None,
        outputs: Outputs | None = None,
        shutdown: bool = False,
        on_event: Callable[[m.Event], None] | None = None,
        central: dict[int, m.Metrics] | None = None,
    ) -> None:
        """`central`: the driver's own scores so far, by round; more are added."""
        self._to = to
        self._display = display
        self._outputs = outputs or Outputs()
        self._shutdown = shutdown
        self._on_event = on_event
        self.client: Client = to.client(PATIENCE_S, self._retrying)
        self._central = {} if central is None else central
        self._scorer = Scorer(evaluate, self.client, self._central, self._scored)
        self._view: View | None = None
        self._told: str | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.client.close()

    @property
    def view(self) -> View:
        """What is known of the run."""
        assert self._view is not None, "begin or attach comes first"
        return self._view

    # ---- the start
    async def reach(self, within_s: float) -> m.FederationStatus:
        """Wait for the controller; raises Unreachable after `within_s` seconds."""
        self.client.patience_s = within_s
        try:
            return await self.client.federation()
        except Unreachable as error:
            raise Unreachable(f"{error.detail} (tried for {within_s:g} s)", **error.values) from error
        finally:
            self.client.patience_s = PATIENCE_S

    async def begin(self, config: Mapping[str, Any]) -> str:
        """Start a run; returns its id."""
        posted = asyncio.ensure_future(self.client.start_run(config))
        try:
            run = await asyncio.shield(posted)
        except asyncio.CancelledError:
            await self._stop_late(posted)
            raise
        self._display.note(f"run {run.id} started at {self._to.url}")
        learners = await self.client.learners()
        self._view = View(self._to.url, run, run.started_at, learners, central=self._central)
        return run.id

    async def attach(self, run_id: str, last_event: int = 0) -> None:
        """Take up a run that was started before; `current` and `latest` stand for an id.

        `last_event`: number of the newest event that is known to be history.
        """
        run, learners = await self.client.run(run_id), await self.client.learners()
        since = max([run.started_at, *(learner.last_seen for learner in learners)])
        self._view = View(self._to.url, run, since, learners, central=self._central, last_event=last_event)
        await self._look_at_rounds()

    # ---- the run
    async def see_through(self) -> dict[str, Any]:
        """Follow the run to its end and collect the results; cancelled, it stops the run first."""
        try:
            return await self._scorer.beside(self._follow_and_collect())
        except asyncio.CancelledError:
            await self._interrupted()
            raise
        except Unreachable as error:
            raise Unreachable(
                f"{error.detail}; the run goes on without its driver if the controller lives: `metis watch` finds it",
                **error.values,
            ) from error

    async def watch(self) -> dict[str, Any]:
        """Follow the run to its end and leave it alone; returns its results."""
        return await self._follow_and_collect()

    async def until_ready(self) -> m.Run:
        """Wait until a manual run is ready for its next round, or over."""
        await self._follow(lambda: self.view.ended or _ready(self.view.run))
        return self.view.run

    async def next_round(self) -> m.Round:
        """Start the next round of a manual run and wait until it has closed."""
        run = self.view.run
        number = run.round + 1 if run.state in ("waiting", "initializing") else run.round
        self.view.run = await self.client.next_round(run.id, number)
        return await self._scorer.beside(self._until_closed(number))

    async def finish(self) -> dict[str, Any]:
        """End the run if it goes on, and collect its results."""
        if not self.view.ended:
            await self._stop("finished by the driver")
        return await self._scorer.beside(self._collect())

    # ---- parts of it
    async def _look_at_rounds(self) -> None:
        self.view.rounds |= {known.round: known for known in await self.client.rounds(self.view.run.id)}

    async def _follow(self, until: Callable[[], bool]) -> None:
        self._display.show(self.view)
        follower = Follower(self.client, self._to.events or self.client.events, self.view, self._tell, until)
        await follower.follow()
        self._display.show(self.view)

    async def _until_closed(self, number: int) -> m.Round:
        await self._follow(lambda: self.view.ended or self.view.is_closed(number))
        await self._look_at_rounds()
        if number not in self.view.rounds:
            raise Conflict(f"round {number} did not begin: {words.ending(self.view.run)}")
        self._scorer.offer(number, self.view.rounds[number].model)
        await self._scorer.finish()
        return self.view.rounds[number]

    async def _follow_and_collect(self) -> dict[str, Any]:
        await self._follow(lambda: self.view.ended)
        return await self._collect()

    async def _collect(self) -> dict[str, Any]:
        collected = await collect(self.client, self.view, self._scorer, self._outputs, self._display)
        if self._shutdown:
            await self.client.shutdown()
            self._display.note(f"the controller at {self._to.url} and its learners were told to end")
        return collected

    # ---- the end before its time
    async def _interrupted(self) -> None:
        self._display.note("interrupted: stopping the run (once more: leave at once)")
        try:
            async with asyncio.timeout(STOP_S):
                await self._stop("interrupted at the driver")
                self._scorer = Scorer(
                    None, self.client, self._central, self._scored
                )  # what is not scored by now stays so
                await self._collect()
                await self._tell_what_runs()
        except Exception as error:  # whatever it is: the user has to know that the run may go on
            why = f"no answer in {STOP_S:g} s" if isinstance(error, TimeoutError) else str(error) or repr(error)
            self._display.note(
                f"the run could not be stopped and collected: {why}; `metis status` shows it, `metis stop` ends it"
            )

    async def _tell_what_runs(self) -> None:
        if self._shutdown:
            return
        here = [learner for learner in await self.client.learners() if learner.state == "active"]
        self._display.note(
            f"still running: the controller at {self._to.url} and {words.people(here)}; `metis shutdown` ends them"
        )

    async def _stop(self, reason: str) -> None:
        await self.client.stop_run(self.view.run.id, reason)
        await self._follow(lambda: self.view.ended)

    async def _stop_late(self, posted: asyncio.Future[m.Run]) -> None:
        """The driver was interrupted while its run was being posted."""
        with suppress(FederationError, TimeoutError):
            async with asyncio.timeout(STOP_S):
                await self.client.stop_run((await posted).id, "interrupted at the driver")

    # ---- what is told
    def _tell(self, event: m.Event) -> None:
        self._scorer.hear(event)
        self._display.show(self.view, event)
        if self._on_event is not None:
            self._pass_on(event, self._on_event)

    def _pass_on(self, event: m.Event, on_event: Callable[[m.Event], None]) -> None:
        try:
            on_event(event)
        except Exception as error:  # of the user's function: not worth the run
            self._on_event = None
            self._display.note(f"on_event failed and is not called again: {of_error(error).line}")

    async def _scored(self, round_number: int, metrics: m.Metrics) -> None:
        self._display.show(self.view)
        if self.view.run.config.evaluation.who == "driver" and not self.view.ended:
            await self.client.submit_scores(self.view.run.id, round_number, metrics)

    def _retrying(self, error: BaseException, wait_s: float) -> None:
        text = f"waiting for the controller at {self._to.url}: {error}"
        if text != self._told:
            self._told = text
            self._display.note(text)


def _ready(run: m.Run) -> bool:
    return run.state == "waiting" and run.model is not None
