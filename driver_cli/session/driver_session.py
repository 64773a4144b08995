"""DriverSession: starts a run on a controller, follows it to its end, and leaves the results."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO, TypeVar

from services import messages as m
from services.config import ClientParams, ServerParams, TerminationSignals
from services.errors import FederationError, InvalidConfig
from services.process import plain
from services.rest import Client

from ..show import Display, Silent, display_for, stderr, words
from . import run_config
from .connection import Connection, connection_to
from .evaluation import Evaluate
from .initial_model import Weights, model_of_run, put_initial
from .results import Outputs
from .run_handle import RunHandle

T = TypeVar("T")


class DriverSession:
    """One run, from its configuration to `results.json`.

    `run()` does it all; a run with `advance = "manual"` is driven by `start()`, `next_round()` and `finish()`.
    """

    def __init__(
        self,
        controller: ServerParams | ClientParams | Connection | str,
        learners: Sequence[ServerParams] | int = 0,
        termination_signals: TerminationSignals | None = None,
        is_async: bool = False,
        evaluate: Evaluate | None = None,
        *,
        config: Mapping[str, Any] | str | Path | None = None,
        token: str | None = None,
        out: str | Path | None = "results.json",
        model_out: str | Path | None = None,
        best_out: str | Path | None = None,
        shutdown: bool = False,
        initial_weights: Weights | None = None,
        from_run: str | None = None,
        controller_timeout_s: float = 600.0,
        learners_timeout_s: float = 600.0,
        on_event: Callable[[m.Event], None] | None = None,
        show: bool = True,
    ) -> None:
        """Nothing is sent yet; raises InvalidConfig for a configuration that cannot be.

        `learners`: how many to wait for (of a list, its length), unless `config` says `min_learners`. `config`: a
        sparse RunConfig or the path of a `federation.toml`; `termination_signals` go before it. `token`: else that of
        METIS_TOKEN or METIS_OPERATOR_TOKEN. `evaluate(weights, round)` scores each community model on the driver's own
        data, in a thread. `initial_weights`: model 0, as a list of arrays, a dict of arrays by name, a torch module or
        its `state_dict()`, or as the path of a weights document, a `.npz` or a `.safetensors` file; `from_run`: the
        final model of that run (an id, or `latest`) instead; with neither a learner's. `show`: a live view or plain
        lines on standard error. The bounds are on how long the controller and the learners are waited for.
        """
        if initial_weights is not None and from_run is not None:
            raise InvalidConfig("initial weights (--initial-model) or the run to go on from (--from-run): not both")
        self._connection = controller if isinstance(controller, Connection) else connection_to(controller, token)
        self.config = run_config.of_session(learners, termination_signals, is_async, config, learners_timeout_s)
        if evaluate is None and self.config.get("evaluation", {}).get("who") == "driver":
            raise InvalidConfig(
                'evaluation.who = "driver": the driver has nothing to evaluate with, give DriverSession(evaluate=...)',
                key="evaluation.who",
            )
        self._initial_weights = initial_weights
        self._from_run = from_run
        self._evaluate = evaluate
        self._outputs = Outputs(out, model_out, best_out)
        self._shutdown = shutdown
        self._controller_timeout_s = controller_timeout_s
        self._on_event = on_event
        self._out: TextIO | None = stderr() if show else None
        self._run_id: str | None = None  # of a run that is driven round by round
        self._last_event = 0
        self._central: dict[int, m.Metrics] = {}

    def run(self) -> dict[str, Any]:
        """Start the run, follow it to its end, and return what was written to `out` (see `services.messages.Results`).

        A run that failed is returned too: `["run"]["state"]` and `["run"]["reason"]` say so. Ctrl-C stops the run.
        Raises FederationError, for example Unreachable, InvalidConfig, RunActive.
        """
        return _blocking(self.arun())

    async def arun(self) -> dict[str, Any]:
        """`run` for programs that have an event loop; cancelling it stops the run."""
        return await self.drive(display_for(self._out))

    async def drive(self, display: Display, attach: bool = False) -> dict[str, Any]:
        """`arun` shown on `display`; with `attach` the run that is active is taken over instead of a new one."""
        self._outputs.check()
        self._central.clear()
        with display:
            async with self._handle(display) as handle:
                await handle.reach(self._controller_timeout_s)
                if attach:
                    await handle.attach("current")
                else:
                    await handle.begin(await self._sent(handle.client))
                return await handle.see_through()

    def start(self) -> dict[str, Any]:
        """Start a run whose rounds are started one by one, and wait until it is ready for the first; returns the run.

        The same as `run` otherwise; `advance = "manual"` is set.
        """
        return _blocking(self._start())

    def next_round(self) -> dict[str, Any]:
        """Start the next round and wait until it has closed; returns it, with its metrics.

        Raises UnknownRun before `start`, Conflict when the run has ended.
        """
        return _blocking(self._next_round())

    def finish(self) -> dict[str, Any]:
        """End the run if it goes on, and return what was written to `out`."""
        return _blocking(self._finish())

    async def _start(self) -> dict[str, Any]:
        self._outputs.check()
        self._central.clear()
        with display_for(self._out) as display:
            async with self._handle(display) as handle:
                await handle.reach(self._controller_timeout_s)
                self._run_id = await handle.begin({**await self._sent(handle.client), "advance": "manual"})
                run = await handle.until_ready()
                self._last_event = handle.view.last_event
                return run.model_dump(mode="json")

    async def _next_round(self) -> dict[str, Any]:
        async with self._handle(Silent()) as handle:
            await handle.attach(self._run_id or "current", self._last_event)
            closed = await handle.next_round()
            self._last_event = handle.view.last_event
            if self._out is not None:
                print(plain(words.round_line(handle.view.run.config, closed)), file=self._out, flush=True)
            return closed.model_dump(mode="json")

    async def _finish(self) -> dict[str, Any]:
        async with self._handle(Silent()) as handle:
            await handle.attach(self._run_id or "latest", self._last_event)
            return await handle.finish()

    async def _sent(self, client: Client) -> dict[str, Any]:
        if self._from_run is not None:
            return {**self.config, "initial_model": await model_of_run(client, self._from_run)}
        if self._initial_weights is None:
            return self.config
        return {**self.config, "initial_model": await put_initial(client, self._initial_weights)}

    def _handle(self, display: Display) -> RunHandle:
        return RunHandle(
            self._connection,
            display,
            evaluate=self._evaluate,
            outputs=self._outputs,
            shutdown=self._shutdown,
            on_event=self._on_event,
            central=self._central,
        )


def _blocking(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` to its end in a program that has no event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(main)
    main.close()
    raise FederationError("an event loop is running already (a notebook?): use `await session.arun()` instead")
