"""The client of the HTTP contract, one method a call. What the controller refuses is raised as the class it raised.

Calls that fail for a passing reason (no connection, 429, 503, a cut body) are repeated with full jitter until
`patience_s` runs out; every call of the contract may be repeated. One that a proxy in between refuses, while the
controller behind it answers others, is given up after a few times (ProxyRefused). The token is sent to the controller's
origin only.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import ssl
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
import tenacity
from pydantic import BaseModel

from .. import messages as m
from ..errors import (
    FederationError,
    InvalidRequest,
    NotOfThisContract,
    ProxyRefused,
    ProxyUnavailable,
    UnexpectedAnswer,
    Unreachable,
)
from ..failures import bounded, one_line
from ..weights import MEDIA_TYPE, Buffer
from . import exchange as transfer
from .backoff import FullJitter, is_passing
from .direct import Direct, NotPlain
from .exchange import Answer, Download, Request, Transport, check, foreign, is_own, is_plain, join, origin
from .stock import Stock, timeouts
from .upload import Passage, Upload

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")
POLL_MARGIN_S = 10.0  # how much longer than `wait` a long poll may take
REFUSALS = 3  # of a call by a proxy: then it is given up
PASSING_REFUSALS = 8  # the same, of the kind that says "not now"
EVENT_STREAM = "text/event-stream"


class Client:
    """A connection to one controller, for learners, drivers and tools. Use it in `async with`."""

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        root_certificate: str | None = None,
        patience_s: float | None = 30.0,
        transport: httpx.AsyncBaseTransport | None = None,
        on_answer: Callable[[], None] | None = None,
        on_retry: Callable[[BaseException, float], None] | None = None,
    ) -> None:
        """`patience_s` None repeats for ever; `on_answer` runs at every answer, `on_retry(error, seconds)` before
        every wait; `transport` replaces the network (an in-process app)."""
        self.base = url.rstrip("/") + "/"
        self.token = token
        self.patience_s = patience_s
        self._on_answer = on_answer
        self._on_retry = on_retry
        self._met = False  # the controller, at this address
        self._heard = 0  # answers of the controller's own
        self._passage = Passage()
        verify: ssl.SSLContext | bool = (
            ssl.create_default_context(cafile=root_certificate) if root_certificate else url.startswith("https:")
        )
        self._stock = Stock(verify, transport)
        self._fast: Transport = Direct() if transport is None and is_plain(url) else self._stock

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._fast.close()
        await self._stock.close()

    # ---- learners
    async def join(self, request: m.JoinRequest, key: str | None = None) -> m.Learner:
        """Enrol (under the enrolment token), or report back (under the learner's own).

        An enrolment that is begun again, by the next process say, gives the same learner under the same `key`.
        """
        headers = {"Idempotency-Key": key or uuid.uuid4().hex}
        return _parse(m.Learner, await self._send("POST", "v1/learners", request, headers=headers, bounded=False))

    async def leave(self, learner_id: str) -> None:
        """Leave the federation for good."""
        await self._send("DELETE", f"v1/learners/{learner_id}")

    async def learners(self) -> list[m.Learner]:
        """Every learner that is or was here."""
        return _parse_list(m.Learner, await self._send("GET", "v1/learners"))

    async def learner(self, learner_id: str) -> m.Learner:
        """One learner."""
        return await self._json(m.Learner, "GET", f"v1/learners/{learner_id}")

    async def readmit(self, learner_id: str) -> m.Learner:
        """Let a learner back that was put aside."""
        return await self._json(m.Learner, "POST", f"v1/learners/{learner_id}/readmit")

    async def next_task(self, learner_id: str, wait_s: float = 30.0) -> m.Task | None:
        """The learner's task, waiting up to `wait_s` seconds for one. Its urls come back absolute."""
        path = f"v1/learners/{learner_id}/task?wait={wait_s:g}"
        answer = await self._send("GET", path, limit_s=wait_s + POLL_MARGIN_S, bounded=False)
        if answer.status == 204:
            return None
        task = _parse(m.Task, answer)
        asked = answer.request.url
        return task.model_copy(
            update={
                "model": _absolute(task.model, asked) if task.model else None,
                "inputs": {name: _absolute(ref, asked) for name, ref in task.inputs.items()},
                "result": m.ResultTarget(url=join(asked, task.result.url)),
            }
        )

    async def heartbeat(self, learner_id: str, task_id: str | None = None, progress: m.Progress | None = None) -> None:
        """Renew the lease; raises TaskVoid when the task is no longer wanted."""
        beat = m.Heartbeat(task_id=task_id, progress=progress)
        await self._send("POST", f"v1/learners/{learner_id}/heartbeat", beat)

    # ---- weights
    async def model(self, reference: m.Reference) -> memoryview:
        """The document that a task refers to.

        Its digest is checked when something stood in between (a proxy, a cache, TLS that ends elsewhere) or when it
        came in several pieces; over one plain connection it came from where the digest came from.
        """
        download = await self._download(reference.url, reference.size)
        if self._fast is self._stock or download.pieces > 1:
            await transfer.check_digest(download.body(), reference.digest)
        return download.body()

    async def run_model(self, run_id: str = "latest", which: str = "latest") -> memoryview:
        """The newest (`latest`) or best (`best`) community model of a run, as a weights document."""
        return (await self._download(f"v1/runs/{run_id}/model?which={which}")).body()

    async def put_model(self, parts: Sequence[Buffer]) -> str:
        """Upload an initial model; returns its digest."""
        digest = await transfer.digest_of(parts)
        await self._upload(f"v1/models/{digest}", parts)
        return digest

    async def submit(self, task: m.Task, parts: Sequence[Buffer]) -> m.Receipt:
        """The result of an `init` or `train` task: a weights document as the buffers that make it up."""
        return _parse(m.Receipt, await self._upload_resuming(task.result.url, parts))

    async def submit_evaluation(self, task: m.Task, result: m.EvaluationResult) -> m.Receipt:
        """The result of an `evaluate` task."""
        return await self._json(m.Receipt, "PUT", task.result.url, result)

    async def fail(self, task_id: str, error: str, traceback: str | None = None) -> None:
        """The learner could not do the task: why in one line, and the traceback, which controllers of 0.1 refuse."""
        path, alone = f"v1/tasks/{task_id}/failure", m.Failure(error=one_line(error))
        if traceback is not None:
            with contextlib.suppress(InvalidRequest):
                await self._send("POST", path, alone.model_copy(update={"traceback": bounded(traceback)}))
                return
        await self._send("POST", path, alone)

    # ---- runs
    async def start_run(self, config: Mapping[str, Any]) -> m.Run:
        """Start a run with a sparse RunConfig."""
        headers = {"Idempotency-Key": uuid.uuid4().hex}
        return _parse(m.Run, await self._send("POST", "v1/runs", dict(config), headers=headers))

    async def runs(self) -> list[m.Run]:
        """Every run, oldest first."""
        return _parse_list(m.Run, await self._send("GET", "v1/runs"))

    async def run(self, run_id: str = "latest") -> m.Run:
        """One run; `current` and `latest` stand for an id."""
        return await self._json(m.Run, "GET", f"v1/runs/{run_id}")

    async def rounds(self, run_id: str = "latest") -> list[m.Round]:
        """The rounds of a run so far."""
        return _parse_list(m.Round, await self._send("GET", f"v1/runs/{run_id}/rounds"))

    async def results(self, run_id: str = "latest") -> m.Results:
        """Everything about a run."""
        return await self._json(m.Results, "GET", f"v1/runs/{run_id}/results")

    async def stop_run(self, run_id: str = "current", reason: str = "stopped by an operator") -> m.Run:
        """End a run; what it made so far is kept."""
        return await self._json(m.Run, "POST", f"v1/runs/{run_id}/stop", m.StopRequest(reason=reason))

    async def next_round(self, run_id: str = "current", number: int | None = None) -> m.Run:
        """Start the next round of a run posted with `advance: "manual"`; with its number the call may be repeated."""
        return await self._json(m.Run, "POST", f"v1/runs/{run_id}/rounds", m.RoundRequest(round=number))

    async def submit_scores(self, run_id: str, number: int, scores: m.Metrics) -> m.Round:
        """The driver's scores of a round's model; may be repeated."""
        result = m.EvaluationResult(metrics=scores)
        return await self._json(m.Round, "PUT", f"v1/runs/{run_id}/rounds/{number}/scores", result)

    # ---- the federation
    async def federation(self) -> m.FederationStatus:
        """State, learners, run, limits, and what is waited for."""
        return await self._json(m.FederationStatus, "GET", "v1/federation")

    async def shutdown(self) -> None:
        """End the controller; agents learn of it at their next poll and exit."""
        await self._send("POST", "v1/shutdown")

    async def events(self, after: int | None = None) -> AsyncIterator[m.Event]:
        """The log from now on (or after event number `after`), for ever: a cut stream is resumed where it was."""
        last, mute = after, 0
        while True:
            response = await self._repeat(functools.partial(self._open_events, last))
            mute += 1  # streams in a row that ended without a word
            async with contextlib.aclosing(response):
                with contextlib.suppress(httpx.TransportError):  # a cut: resume after the last event
                    async for line in response.aiter_lines():
                        mute = 0
                        if line.startswith("data:"):  # WHATWG HTML, section 9.2; other fields repeat the data
                            event = m.Event.model_validate_json(line[5:])
                            last = event.id
                            yield event
            await asyncio.sleep(FullJitter().seconds(mute) if mute else 0.0)

    async def _open_events(self, last: int | None) -> httpx.Response:
        """A stream that has begun."""
        url = join(self.base, "v1/events")
        headers = {**self._credential(url), "Accept": EVENT_STREAM}
        if last is not None:
            headers["Last-Event-ID"] = str(last)
        request = self._stock.http.build_request("GET", url, headers=headers, timeout=timeouts(45.0))
        try:
            response = await self._stock.http.send(request, stream=True)
            named = {name.lower(): value for name, value in response.headers.items()}
            answer = Answer(Request("GET", url), response.status_code, named, b"")
            if response.status_code != 200:
                check(replace(answer, body=await response.aread()), self._met)
            if answer.media_type != EVENT_STREAM:
                await response.aclose()
                raise foreign(answer, self._met)
        except httpx.HTTPError as error:
            raise Unreachable(f"no answer from {self.base}: {error or type(error).__name__}", url=self.base) from error
        return response

    # ---- how calls are made
    async def _repeat(self, call: Callable[[], Awaitable[T]], bounded: bool = True) -> T:
        """Make a call until it succeeds, fails for good, or the patience is over."""
        attempt = self._bounded(call) if bounded else call
        try:
            return await attempt()
        except FederationError as error:
            if not self._is_passing(error) or self.patience_s == 0:
                raise
        attempts = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(self._is_passing),
            wait=FullJitter(),
            stop=tenacity.stop_never if self.patience_s is None else tenacity.stop_after_delay(self.patience_s),
            before_sleep=self._tell,
            reraise=True,
        )

        async def again() -> T:  # tenacity awaits what it sees to be a coroutine function: a lambda is not
            return await attempt()

        return await attempts(again)

    def _bounded(self, call: Callable[[], Awaitable[T]]) -> Callable[[], Awaitable[T]]:
        """The call, to be repeated; raises ProxyRefused once a proxy has refused it too often."""
        refusals, heard = 0, self._heard

        async def attempt() -> T:
            nonlocal refusals, heard
            try:
                return await call()
            except (NotOfThisContract, ProxyUnavailable) as error:
                too_long = error.values["status"] == 413  # and will be so again
                if not too_long and await self._answers_others(heard):
                    refusals += 1
                heard = self._heard
                if not too_long and refusals < (PASSING_REFUSALS if error.retryable else REFUSALS):
                    raise
                raise ProxyRefused(error.values["refusal"], **error.values) from error

        return attempt

    async def _answers_others(self, heard: int) -> bool:
        """Whether the controller, which was heard so often, answers other calls: it is not away behind its proxy."""
        if self._heard == heard:
            with contextlib.suppress(FederationError):
                await self._attempt(Request("GET", join(self.base, "healthz"), limit_s=10.0))
        return self._heard > heard

    def _tell(self, state: tenacity.RetryCallState) -> None:
        if self._on_retry and state.outcome and (error := state.outcome.exception()):
            self._on_retry(error, state.next_action.sleep if state.next_action else 0.0)

    async def _attempt(self, request: Request) -> Answer:
        """One exchange; raises what the controller refused, or Unreachable."""
        try:
            answer = await self._fast.send(request)
        except NotPlain:  # something stands in between after all
            await self._fast.close()
            self._fast = self._stock
            answer = await self._fast.send(request)
        if is_own(answer):
            self._met, self._heard = True, self._heard + 1
            if self._on_answer:
                self._on_answer()
        check(answer, self._met)
        return answer

    def _is_passing(self, error: BaseException) -> bool:
        """Whether to repeat. Once the controller has answered, another's answer comes from a proxy that misses it."""
        return is_passing(error) or (self._met and isinstance(error, NotOfThisContract))

    def _credential(self, url: str) -> dict[str, str]:
        """The token, for the controller's own origin only."""
        own = url.startswith(self.base) or origin(url) == origin(self.base)
        return {"Authorization": f"Bearer {self.token}"} if self.token and own else {}

    async def _send(
        self,
        method: str,
        path: str,
        body: BaseModel | Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        limit_s: float = 30.0,
        bounded: bool = True,
    ) -> Answer:
        url, content = join(self.base, path), _encode(body)
        sent = {**(headers or {}), **({"Content-Type": "application/json"} if content is not None else {})}
        parts = () if content is None else (content,)
        return await self._repeat(
            lambda: self._attempt(Request(method, url, {**self._credential(url), **sent}, parts, limit_s=limit_s)),
            bounded,
        )

    async def _json(self, kind: type[M], method: str, path: str, body: BaseModel | None = None) -> M:
        return _parse(kind, await self._send(method, path, body))

    async def _upload(self, path: str, parts: Sequence[Buffer]) -> Answer:
        url = join(self.base, path)
        return await self._repeat(
            lambda: self._attempt(
                Request("PUT", url, {**self._credential(url), "Content-Type": MEDIA_TYPE}, parts, limit_s=300.0)
            )
        )

    async def _upload_resuming(self, path: str, parts: Sequence[Buffer]) -> Answer:
        """The same; after a cut only what is missing is sent, and another way is gone where a proxy refuses one."""
        url = join(self.base, path)
        upload = Upload(url, parts, self._credential(url), self._attempt, self._passage)
        while True:
            try:
                answer = await self._repeat(upload.step)
            except ProxyRefused as refusal:
                upload.give_way(refusal)
                continue
            if answer is not None:
                return answer

    async def _download(self, path: str, size: int = 0) -> Download:
        url, download = join(self.base, path), Download(size)

        async def attempt() -> None:
            headers = {**self._credential(url), "Accept-Encoding": "identity", **download.headers}
            try:
                await self._attempt(Request("GET", url, headers, into=download, limit_s=120.0))
            except NotOfThisContract as error:
                if error.values["status"] < 300:  # somebody's page was written where the model belongs
                    download.have = 0
                raise

        await self._repeat(attempt)
        return download


def _encode(body: BaseModel | Mapping[str, Any] | None) -> bytes | None:
    if body is None:
        return None
    if isinstance(body, BaseModel):
        return body.model_dump_json(exclude_none=True).encode()
    try:
        return json.dumps(body, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise FederationError(f"this cannot be sent as JSON: {error}") from error


def _parse(kind: type[M], answer: Answer) -> M:
    try:
        return kind.model_validate_json(answer.body)
    except ValueError as error:
        raise _unexpected(answer, kind) from error


def _parse_list(kind: type[M], answer: Answer) -> list[M]:
    try:
        return [kind.model_validate(item) for item in json.loads(answer.body)]
    except (ValueError, TypeError) as error:
        raise _unexpected(answer, kind) from error


def _unexpected(answer: Answer, kind: type[BaseModel]) -> UnexpectedAnswer:
    return UnexpectedAnswer(
        f"{answer.request.method} {answer.request.url} answered {answer.status} with something that is not"
        f" a {kind.__name__}: is this the controller's address?"
    )


def _absolute(reference: m.Reference, asked: str) -> m.Reference:
    return reference.model_copy(update={"url": join(asked, reference.url)})


__all__ = ["MEDIA_TYPE", "Client"]
