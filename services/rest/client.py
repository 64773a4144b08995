"""The client of the HTTP contract, one method a call. What the controller refuses is raised as the class it raised.

Calls that fail for a passing reason (no connection, 429, 503, a cut body) are repeated with full jitter until
`patience_s` runs out; every call of the contract may be repeated. The token is sent to the controller's origin only.
"""

from __future__ import annotations

import contextlib
import json
import ssl
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urljoin

import httpx
import tenacity
from pydantic import BaseModel

from .. import messages as m
from ..errors import FederationError, UnexpectedAnswer, Unreachable
from ..wire import MEDIA_TYPE, Buffer
from . import transfer
from .backoff import FullJitter, is_passing
from .problem import raise_problem

T = TypeVar("T", bound=BaseModel)
POLL_MARGIN_S = 10.0  # how much longer than `wait` a long poll may take


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
        verify: ssl.SSLContext | bool = (
            ssl.create_default_context(cafile=root_certificate) if root_certificate else url.startswith("https:")
        )
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=60)
        timeout = httpx.Timeout(30.0, connect=10.0, pool=None)
        self._http = httpx.AsyncClient(verify=verify, transport=transport, limits=limits, timeout=timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    # ---- learners
    async def join(self, request: m.JoinRequest) -> m.Learner:
        """Enrol (under the enrolment token), or report back (under the learner's own)."""
        return await self._json(m.Learner, "POST", "v1/learners", request)

    async def leave(self, learner_id: str) -> None:
        """Leave the federation for good."""
        await self._send("DELETE", f"v1/learners/{learner_id}")

    async def learners(self) -> list[m.Learner]:
        """Every learner that is or was here."""
        return [m.Learner.model_validate(item) for item in (await self._send("GET", "v1/learners")).json()]

    async def learner(self, learner_id: str) -> m.Learner:
        """One learner."""
        return await self._json(m.Learner, "GET", f"v1/learners/{learner_id}")

    async def next_task(self, learner_id: str, wait_s: float = 30.0) -> m.Task | None:
        """The learner's task, waiting up to `wait_s` seconds for one. Its urls come back absolute."""
        path = f"v1/learners/{learner_id}/task?wait={wait_s:g}"
        response = await self._send("GET", path, limit_s=wait_s + POLL_MARGIN_S)
        if response.status_code == 204:
            return None
        task = _parse(m.Task, response)
        origin = str(response.url)
        return task.model_copy(
            update={
                "model": _absolute(task.model, origin) if task.model else None,
                "inputs": {name: _absolute(ref, origin) for name, ref in task.inputs.items()},
                "result": m.ResultTarget(url=urljoin(origin, task.result.url)),
            }
        )

    async def heartbeat(self, learner_id: str, task_id: str | None = None, progress: m.Progress | None = None) -> None:
        """Renew the lease; raises TaskVoid when the task is no longer wanted."""
        beat = m.Heartbeat(task_id=task_id, progress=progress)
        await self._send("POST", f"v1/learners/{learner_id}/heartbeat", beat)

    # ---- weights
    async def model(self, reference: m.Reference) -> bytearray:
        """The document that a task refers to, checked against its digest."""
        return await transfer.checked(await self._download(reference.url), reference.digest)

    async def run_model(self, run_id: str = "latest", which: str = "latest") -> bytearray:
        """The newest (`latest`) or best (`best`) community model of a run, as a weights document."""
        return await self._download(f"v1/runs/{run_id}/model?which={which}")

    async def put_model(self, parts: Sequence[Buffer]) -> str:
        """Upload an initial model; returns its digest."""
        digest = await transfer.digest_of(parts)
        await self._upload(f"v1/models/{digest}", parts)
        return digest

    async def submit(self, task: m.Task, parts: Sequence[Buffer]) -> m.Receipt:
        """The result of an `init` or `train` task: a weights document as the buffers that make it up."""
        return _parse(m.Receipt, await self._upload(task.result.url, parts))

    async def submit_evaluation(self, task: m.Task, result: m.EvaluationResult) -> m.Receipt:
        """The result of an `evaluate` task."""
        return await self._json(m.Receipt, "PUT", task.result.url, result)

    async def fail(self, task_id: str, error: str) -> None:
        """The learner could not do the task."""
        await self._send("POST", f"v1/tasks/{task_id}/failure", m.Failure(error=error[-20000:]))

    # ---- runs
    async def start_run(self, config: Mapping[str, Any]) -> m.Run:
        """Start a run with a sparse RunConfig."""
        headers = {"Idempotency-Key": uuid.uuid4().hex}
        return _parse(m.Run, await self._send("POST", "v1/runs", dict(config), headers=headers))

    async def runs(self) -> list[m.Run]:
        """Every run, oldest first."""
        return [m.Run.model_validate(item) for item in (await self._send("GET", "v1/runs")).json()]

    async def run(self, run_id: str = "latest") -> m.Run:
        """One run; `current` and `latest` stand for an id."""
        return await self._json(m.Run, "GET", f"v1/runs/{run_id}")

    async def rounds(self, run_id: str = "latest") -> list[m.Round]:
        """The rounds of a run so far."""
        answer = await self._send("GET", f"v1/runs/{run_id}/rounds")
        return [m.Round.model_validate(item) for item in answer.json()]

    async def results(self, run_id: str = "latest") -> m.Results:
        """Everything about a run."""
        return await self._json(m.Results, "GET", f"v1/runs/{run_id}/results")

    async def stop_run(self, run_id: str = "current", reason: str = "stopped by an operator") -> m.Run:
        """End a run; what it made so far is kept."""
        return await self._json(m.Run, "POST", f"v1/runs/{run_id}/stop", m.StopRequest(reason=reason))

    async def next_round(self, run_id: str = "current", number: int | None = None) -> m.Run:
        """Start the next round of a run posted with `advance: "manual"`; with its number the call may be repeated."""
        return await self._json(m.Run, "POST", f"v1/runs/{run_id}/rounds", m.RoundRequest(round=number))

    # ---- the federation
    async def federation(self) -> m.FederationStatus:
        """State, learners, run, limits, and what is waited for."""
        return await self._json(m.FederationStatus, "GET", "v1/federation")

    async def shutdown(self) -> None:
        """End the controller; agents learn of it at their next poll and exit."""
        await self._send("POST", "v1/shutdown")

    async def events(self, after: int | None = None) -> AsyncIterator[m.Event]:
        """The log from now on (or after event number `after`), for ever: a cut stream is resumed where it was."""
        last = after
        while True:
            async for attempt in self._attempts():
                with attempt:
                    headers = {"Accept": "text/event-stream"}
                    if last is not None:
                        headers["Last-Event-ID"] = str(last)
                    async with self._open("GET", "v1/events", headers=headers, limit_s=45.0) as response:
                        heard = False
                        with contextlib.suppress(httpx.TransportError):  # a cut: resume after the last event
                            async for line in response.aiter_lines():
                                heard = True
                                if line.startswith("data:"):  # WHATWG HTML, section 9.2; other fields repeat the data
                                    event = m.Event.model_validate_json(line[5:])
                                    last = event.id
                                    yield event
                        if not heard:
                            raise Unreachable(f"{self.base} closed the event stream at once", url=self.base)

    # ---- how calls are made
    def _attempts(self) -> tenacity.AsyncRetrying:
        patience = self.patience_s
        return tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(is_passing),
            wait=FullJitter(),
            stop=tenacity.stop_never if patience is None else tenacity.stop_after_delay(patience),
            before_sleep=self._tell,
            reraise=True,
        )

    def _tell(self, state: tenacity.RetryCallState) -> None:
        if self._on_retry and state.outcome and (error := state.outcome.exception()):
            self._on_retry(error, state.next_action.sleep if state.next_action else 0.0)

    @asynccontextmanager
    async def _open(
        self,
        method: str,
        path: str,
        content: Any = None,
        headers: Mapping[str, str] | None = None,
        limit_s: float | None = None,
    ) -> AsyncIterator[httpx.Response]:
        """One attempt, its body not yet read; raises what the controller refused, or Unreachable."""
        url = urljoin(self.base, path)
        sent = dict(headers or {})
        if self.token and _origin(url) == _origin(self.base):
            sent["Authorization"] = f"Bearer {self.token}"
        extra: dict[str, Any] = {} if limit_s is None else {"timeout": httpx.Timeout(limit_s, connect=10.0, pool=None)}
        try:
            async with self._http.stream(method, url, content=content, headers=sent, **extra) as response:
                if self._on_answer:
                    self._on_answer()
                if response.status_code >= 300:
                    await response.aread()
                    raise_problem(response)
                yield response
        except httpx.InvalidURL as error:
            raise UnexpectedAnswer(f"{url} is not a URL: {error}") from error
        except httpx.HTTPError as error:
            raise Unreachable(f"no answer from {self.base}: {error or type(error).__name__}", url=self.base) from error

    async def _send(
        self,
        method: str,
        path: str,
        body: BaseModel | Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        limit_s: float | None = None,
    ) -> httpx.Response:
        content = _encode(body)
        sent = {**(headers or {}), **({"Content-Type": "application/json"} if content is not None else {})}
        async for attempt in self._attempts():
            with attempt:
                async with self._open(method, path, content, sent, limit_s) as response:
                    await response.aread()
                    return response
        raise AssertionError("unreachable: the last attempt raises")

    async def _json(self, kind: type[T], method: str, path: str, body: BaseModel | None = None) -> T:
        return _parse(kind, await self._send(method, path, body))

    async def _upload(self, path: str, parts: Sequence[Buffer]) -> httpx.Response:
        headers = {"Content-Type": MEDIA_TYPE, "Content-Length": str(transfer.length(parts))}
        async for attempt in self._attempts():
            with attempt:
                async with self._open("PUT", path, transfer.pieces(parts), headers, limit_s=300.0) as response:
                    await response.aread()
                    return response
        raise AssertionError("unreachable: the last attempt raises")

    async def _download(self, path: str) -> bytearray:
        download = transfer.Download()
        async for attempt in self._attempts():
            with attempt:
                headers = {"Accept-Encoding": "identity", **download.headers}
                async with self._open("GET", path, headers=headers, limit_s=120.0) as response:
                    await download.read(response)
        return download.body


def _encode(body: BaseModel | Mapping[str, Any] | None) -> bytes | None:
    if body is None:
        return None
    if isinstance(body, BaseModel):
        return body.model_dump_json(exclude_none=True).encode()
    try:
        return json.dumps(body, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise FederationError(f"this cannot be sent as JSON: {error}") from error


def _parse(kind: type[T], response: httpx.Response) -> T:
    try:
        return kind.model_validate_json(response.content)
    except ValueError as error:
        raise UnexpectedAnswer(
            f"{response.request.method} {response.url} answered {response.status_code} with something that is not"
            f" a {kind.__name__}: is this the controller's address?"
        ) from error


def _origin(url: str) -> tuple[str, bytes]:
    parsed = httpx.URL(url)
    return parsed.scheme, parsed.netloc


def _absolute(reference: m.Reference, origin: str) -> m.Reference:
    return reference.model_copy(update={"url": urljoin(origin, reference.url)})
