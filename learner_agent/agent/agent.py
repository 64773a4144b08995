"""The agent: enrols a learner, takes its tasks one by one, sends what comes out, and never gives up on its own.

A result is sent until it is acknowledged or refused, so a lost reply or a restarted controller costs no training.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace

import structlog

from services import messages as m
from services.encoding import CODECS, decode_model
from services.errors import (
    DifferentBody,
    FederationError,
    FederationOver,
    NameTaken,
    ProxyRefused,
    TaskVoid,
    Unauthenticated,
    UnknownLearner,
)
from services.failures import one_line
from services.process import Workers
from services.rest import Client, FullJitter
from services.weights import Buffer, Coded, Document, Layout, layout_of, wire

from .encoding import UpdateEncoder
from .heartbeats import NOT_A_MEMBER, NOT_WANTED, heartbeats
from .inputs import Inputs
from .state_file import Enrolment, Identity, StateFile
from .task_report import TaskReport, current, reason_of, told
from .tasks import Work

log = structlog.get_logger("learner")
MODELS_KEPT = 2  # the one being trained, and the one before
NAME_PATIENCE_S = 120.0  # how long a taken name is waited for: the lease of a predecessor that died
GOODBYE_S = 5.0  # how long leaving may take
ANSWER_S = 1.0  # how long the answer to an enrolment is waited for by an agent that is to end
UNSUPPORTED = "unsupported-task"
Result = list[Buffer] | m.EvaluationResult
Source = Callable[[Client, m.Learner], AsyncGenerator[m.Task, None]]


class UnsupportedKind(Exception):
    """A task of a kind that this agent does not know."""


class Agent:
    """One learner's side of the federation. `run()` works until the federation is over or it is cancelled."""

    def __init__(
        self,
        work: Work,
        client: Client,
        source: Source,
        request: m.JoinRequest,
        *,
        workers: Workers | None = None,
        state: StateFile | None = None,
        name_patience_s: float = NAME_PATIENCE_S,
        tells_traceback: bool = True,
    ) -> None:
        """`client` presents the enrolment token, or none; `state` is where the identity is kept between restarts;
        `tells_traceback` False tells of a task that failed only why, in a line."""
        self._at_work = work
        self._client = client
        self._source = source
        self._request = request.model_copy(update={"encodings": list(CODECS)})
        self._workers = workers or Workers()
        self._state = state
        self._name_patience_s = name_patience_s
        self._tells_traceback = tells_traceback
        self._enroll_token = client.token
        self._models: OrderedDict[str, memoryview] = OrderedDict()
        self._layout: Layout | None = None  # of the newest model that was decoded
        self._inputs = Inputs(client)
        self._encoder = UpdateEncoder()
        self._dropped_id, self._in_vain = "", 0  # the task that was given up last, and how often again
        self.me: m.Learner | None = None

    async def run(self) -> None:
        """Work until the federation is over; leaves it when cancelled. Raises what cannot be mended by waiting."""
        lost = 0  # memberships since the last task
        try:
            while True:
                self.me = await self._enrol_or_leave()
                log.info("enrolled", name=self.me.name, controller=self._client.base)
                try:
                    async with contextlib.aclosing(self._source(self._client, self.me)) as tasks:
                        async for task in tasks:
                            lost = 0
                            await self._do(task)
                except (Unauthenticated, UnknownLearner):
                    log.warning("the controller does not know this learner any more: enrolling again")
                    self._forget()
                    lost += 1
                    await asyncio.sleep(FullJitter().seconds(lost))
        except FederationOver:
            log.info("the federation is over")
            self._forget()
        except asyncio.CancelledError:
            await self._leave()
            raise

    # ---- membership
    async def _enrol_or_leave(self) -> m.Learner:
        """Enrol. Cancelled meanwhile, wait a moment for the answer: who has not heard that it is a member cannot leave,
        and its name stays taken."""
        enrolling = asyncio.ensure_future(self._enrol())
        try:
            return await asyncio.shield(enrolling)
        except asyncio.CancelledError:
            self._client.patience_s = 0.0
            with contextlib.suppress(FederationError, TimeoutError):
                async with asyncio.timeout(ANSWER_S):
                    self.me = await enrolling
            raise

    async def _enrol(self) -> m.Learner:
        """Report back under the saved identity, or enrol, going on with an enrolment whose answer was lost."""
        saved = self._state.load() if self._state else None
        if isinstance(saved, Identity):
            self._client.token = saved.token
            try:
                me = await self._client.join(self._request)
            except Unauthenticated:
                self._forget()
                saved = None
            else:
                secret = me.webhook_secret or saved.webhook_secret
                if self._state and secret != saved.webhook_secret:
                    self._state.save(replace(saved, webhook_secret=secret))
                return me.model_copy(update={"webhook_secret": secret})
        me = await self._enrol_anew(saved)
        self._client.token = me.token
        if self._state and me.token:
            self._state.save(Identity(me.id, me.token, me.webhook_secret))
        return me

    async def _enrol_anew(self, begun: Enrolment | None) -> m.Learner:
        """Enrol under a key that is kept before it is sent: killed before the answer is kept, the agent's next process
        asks under it again. A taken name is waited for, its holder may have died."""
        self._client.token = self._enroll_token
        backoff, waited, attempt = FullJitter(), 0.0, 0
        enrolment = begun or self._begun()
        while True:
            try:
                return await self._client.join(self._request, enrolment.idempotency_key)
            except DifferentBody:
                if enrolment is not begun:
                    raise
                enrolment = self._begun()  # this process asks for something else under the key of the one before
            except NameTaken as error:
                if waited >= self._name_patience_s:
                    raise
                attempt += 1
                seconds = backoff.seconds(attempt)
                log.warning("the name is in use; waiting for it", why=error.detail)
                await asyncio.sleep(seconds)
                waited += seconds

    def _begun(self) -> Enrolment:
        """A new enrolment, kept for the next process."""
        enrolment = Enrolment()
        if self._state:
            self._state.save(enrolment)
        return enrolment

    async def _leave(self) -> None:
        """Leave, within a bound; what it was working on is handed back by that."""
        if self.me is None:
            return
        self._client.patience_s = 0.0
        with contextlib.suppress(FederationError, TimeoutError):
            async with asyncio.timeout(GOODBYE_S):
                await self._client.leave(self.me.id)
            log.info("left the federation", name=self.me.name)
            self._forget()

    def _forget(self) -> None:
        if self._state:
            self._state.save(None)

    # ---- tasks
    async def _do(self, task: m.Task) -> None:
        """Do one task and deliver what came out, with heartbeats meanwhile; only what ends the membership is raised."""
        report = TaskReport()
        assert self.me is not None
        beats = heartbeats(self._client, self.me.id, task, report)
        try:
            result = await self._work(task, report)
            if ended := beats.result():
                raise ended
            if report.void:
                raise TaskVoid(report.void)
            await self._deliver(task, result)
            self._encoder.taken(task)
            self._inputs.taken(task)
            log.info("done", kind=task.kind, round=task.round)
        except NOT_WANTED as error:
            log.info("no longer wanted", kind=task.kind, round=task.round, why=error.detail)
            await self._dropped(task)
        except NOT_A_MEMBER:
            raise
        except FederationError as error:
            await self._report_failure(task, one_line(f"{error.name}: {error}"))
        except UnsupportedKind:
            await self._report_failure(task, UNSUPPORTED)
        except Exception as error:
            line, traceback = reason_of(error)
            log.error("failed", kind=task.kind, round=task.round, error=line, exception=traceback)
            await self._report_failure(task, line, traceback)
        finally:
            beats.cancel()
            report.void = report.void or "the agent is leaving"

    async def _dropped(self, task: m.Task) -> None:
        """A task is given up. One that is given again and again, since its model cannot be had, is tried ever less
        often."""
        self._in_vain = self._in_vain + 1 if task.id == self._dropped_id else 0
        self._dropped_id = task.id
        if self._in_vain:
            await asyncio.sleep(FullJitter().seconds(self._in_vain))

    async def _work(self, task: m.Task, report: TaskReport) -> Result:
        """The learner's own part, in a worker, where `progress()` finds the report."""
        current.set(report)
        if task.kind == "init":
            return await self._workers.run(told, self._at_work.initial)
        if task.kind == "train":
            task, inputs = await self._inputs.of(task)
            if task.encoding is not None:
                body = await self._body(task)
                return await self._workers.run(told, self._encoder.train, self._at_work, body, task, inputs)
            model = replace(await self._model(task, to_change=True), extra=inputs)
            return await self._workers.run(told, self._at_work.train, model, task)
        if task.kind == "evaluate":
            return await self._workers.run(told, self._at_work.evaluate, await self._model(task), task)
        raise UnsupportedKind

    async def _model(self, task: m.Task, to_change: bool = False) -> Document:
        """The task's model. One that is `to_change` is held no longer."""
        body = await self._body(task, to_change)
        if self._layout is not None and self._layout.fits(body):
            return Document(self._layout.read(body, writable=to_change))
        document = wire.parse(body, writable=to_change)
        if any(isinstance(tensor, Coded) for tensor in document.tensors):
            return await self._workers.run(decode_model, document)
        self._layout = layout_of(body)
        return wire.plain(document)

    async def _body(self, task: m.Task, to_change: bool = False) -> memoryview:
        """The document of the task's model, downloaded only when it is not held."""
        assert task.model is not None
        digest = task.model.digest
        body = self._models.pop(digest, None)
        if body is None:
            body = await self._client.model(task.model)
        if not to_change:
            self._models[digest] = body
            while len(self._models) > MODELS_KEPT:
                self._models.popitem(last=False)
        return body

    async def _deliver(self, task: m.Task, result: Result) -> None:
        if isinstance(result, m.EvaluationResult):
            await self._client.submit_evaluation(task, result)
        else:
            await self._client.submit(task, result)

    async def _report_failure(self, task: m.Task, reason: str, traceback: str | None = None) -> None:
        log.warning("reporting a failure", kind=task.kind, round=task.round, reason=reason)
        try:
            with contextlib.suppress(*NOT_WANTED):
                await self._client.fail(task.id, reason, traceback if self._tells_traceback else None)
        except ProxyRefused as error:  # the task is still on offer
            log.warning("the failure could not be reported", why=error.detail)
            await self._dropped(task)
