"""`evaluate=`: scoring each community model on the driver's own data, in a thread, while the run goes on."""

from __future__ import annotations

import asyncio
import math
import tempfile
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import IO, Any, TypeVar

from numpy.typing import NDArray

from services import messages as m
from services.errors import FederationError
from services.failures import of_error
from services.process import Workers
from services.rest import Client
from services.weights import wire

from ..race import race

T = TypeVar("T")
Evaluate = Callable[[list[NDArray[Any]], int], Mapping[str, float]]
Scored = Callable[[int, m.Metrics], Awaitable[None]]
IN_MEMORY = 64 << 20  # bytes; a larger model waits for its turn in a temporary file


class Scorer:
    """Models are downloaded as they appear (the controller keeps few) and scored one after the other."""

    def __init__(self, evaluate: Evaluate | None, client: Client, scores: dict[int, m.Metrics], scored: Scored) -> None:
        """Fills `scores` by round, and calls `scored(round, metrics)` after each, with none where it failed; a round
        that is in it is not scored again. Without `evaluate` nothing is ever scored.
        """
        self._evaluate, self._client, self._scores, self._scored = evaluate, client, scores, scored
        self._offered = set(scores)
        self._to_fetch: asyncio.Queue[tuple[int, str]] = asyncio.Queue()
        self._to_score: asyncio.Queue[tuple[int, IO[bytes]]] = asyncio.Queue()
        self._done = len(scores)
        self._threads = Workers(name="evaluation")
        self.errors: dict[int, str] = {}  # by round: why there is no score

    def offer(self, round_number: int, digest: str | None) -> None:
        """Have the community model of a round scored, once."""
        if self.active and digest is not None and round_number > 0 and round_number not in self._offered:
            self._offered.add(round_number)
            self._to_fetch.put_nowait((round_number, digest))

    @property
    def active(self) -> bool:
        """Whether there is a function to score with."""
        return self._evaluate is not None

    @property
    def pending(self) -> int:
        """Models that are offered and not scored yet."""
        return len(self._offered) - self._done

    def hear(self, event: m.Event) -> None:
        """Offer the model that an event speaks of."""
        digest = event.data.get("model")
        if event.kind in ("round-aggregated", "round-closed") and event.round is not None and isinstance(digest, str):
            self.offer(event.round, digest)

    async def beside(self, main: Coroutine[Any, Any, T]) -> T:
        """`main`, with models being fetched and scored meanwhile."""
        return await race(main, self.fetch(), self.score())

    async def finish(self) -> None:
        """Wait until every offered model is scored, or has an error."""
        await self._to_fetch.join()
        await self._to_score.join()

    async def fetch(self) -> None:
        """Download the offered models, for ever."""
        while True:
            round_number, digest = await self._to_fetch.get()
            try:
                reference = m.Reference(digest=digest, url=f"v1/models/{digest}", size=0)
                file: IO[bytes] = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115 - `score` closes it
                file.write(await self._client.model(reference))
                self._to_score.put_nowait((round_number, file))
            except FederationError as error:
                self.errors[round_number] = f"the model could not be fetched: {error.detail}"
                self._done += 1
            finally:
                self._to_fetch.task_done()

    async def score(self) -> None:
        """Score the downloaded models, for ever. An error of the user's function is kept, and the run goes on."""
        while True:
            round_number, file = await self._to_score.get()
            try:
                self._scores[round_number] = await self._threads.run(self._call, file, round_number)
            except Exception as error:
                self.errors[round_number] = of_error(error).line
            try:
                await self._scored(round_number, self._scores.get(round_number, {}))
            except FederationError as error:
                self.errors.setdefault(round_number, f"the scores were not taken: {error.detail}")
            finally:
                file.close()
                self._done += 1
                self._to_score.task_done()

    def _call(self, file: IO[bytes], round_number: int) -> m.Metrics:
        file.seek(0)
        arrays = wire.decode(bytearray(file.read())).arrays
        assert self._evaluate is not None, "offer takes nothing without it"
        metrics = self._evaluate(arrays, round_number)
        if not isinstance(metrics, Mapping):
            raise TypeError(f"evaluate must return a mapping of names to numbers, not {type(metrics).__name__}")
        return {str(name): _finite(name, value) for name, value in metrics.items()}


def _finite(name: Any, value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"evaluate: {name} must be a number, not {value!r}") from error
    return number if math.isfinite(number) else None
