"""The async shell around the federation: its clock, its waiting polls, its event log, its store, its aggregations.

One event loop owns the Federation, so there are no locks. Every command goes through `_changed`, which passes on what
the federation left: events to the log, wakes to polls and webhooks, an aggregation to a thread.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, TypeVar

import structlog

from services import messages as m
from services.engine import Made, aggregate, layout_in, store_model
from services.errors import FederationError, UnknownModel
from services.federation import Aggregation, Federation
from services.layout import Layout
from services.roster import Member
from services.rounds import Assignment, ModelInfo, Outcome
from services.run import RunState
from services.store import ModelStore
from services.wire import PLAIN, Buffer, Tensor

from .event_log import EventLog
from .first_model import first_model
from .metrics import Metrics
from .polls import Polls
from .settings import Settings
from .store_calls import StoreCalls
from .tokens import hashed, new_token, new_webhook_secret
from .uploads import Uploads
from .webhooks import Webhooks

T = TypeVar("T")
log = structlog.get_logger("controller")
UPLOADED_KEPT = 8  # newest models that an operator put and no run uses yet
QUIET_EVENTS = ("task-progress", "task-offered", "update-accepted", "run-state")  # no line in the log
LOOK_S = 0.002  # deadlines are looked at no more often, however many changes there are
SHUTDOWN_GRACE_S = 15.0  # how long agents have to hear that the federation is over


class Runtime:
    """State and background work of one controller process."""

    def __init__(
        self,
        settings: Settings,
        store: ModelStore,
        defaults: Mapping[str, Any],
        metrics: Metrics,
        webhooks: Webhooks,
        lineage_length: int,
    ) -> None:
        """`lineage_length`: updates that the store keeps of a learner, 0 for all."""
        self.settings = settings
        self.store = store
        self.events = EventLog()
        self.metrics = metrics
        self.slots = asyncio.Semaphore(settings.upload_slots)
        self.uploads = Uploads(settings.upload_slots)
        self.federation = Federation(
            defaults,
            epoch=time.time() - time.monotonic(),
            new_id=lambda: secrets.token_hex(8),
            stopwatch=time.perf_counter,
            lineage_length=lineage_length,
        )
        self.stopped = asyncio.Event()  # the process may end
        self._models: dict[str, tuple[ModelInfo, Layout]] = {}
        self._uploaded: OrderedDict[str, None] = OrderedDict()
        self._polls = Polls()
        self._calls = StoreCalls(store, self.stopped)
        self.off_loop = self._calls.off_loop
        self._left: set[str] = set()  # learners whose updates are still to be erased
        self._told_over: set[str] = set()
        self._alarm = asyncio.Event()
        self._draining = False
        self._webhooks = webhooks
        self._background: asyncio.TaskGroup | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The background work: deadlines, aggregations, webhooks. Ends all of it on leaving."""
        async with asyncio.TaskGroup() as group, self._webhooks.running():
            self._background = group
            keepers = [group.create_task(one) for one in (self._keep_time(), self._calls.settle_later())]
            try:
                yield
            finally:
                self.drain()
                for one in keepers:
                    one.cancel()
                self._background = None
        self.store.close()

    @property
    def now(self) -> float:
        """Seconds on the monotonic clock."""
        return time.monotonic()

    # ---- learners
    def join(self, request: m.JoinRequest) -> m.Learner:
        """Enrol a learner; its token is in the answer, once."""
        token, secret = new_token(), new_webhook_secret() if request.callback_url else None
        member = self._changed(lambda: self.federation.join(request, hashed(token), self.now, secret))
        return self._shown(member).model_copy(update={"token": token, "webhook_secret": secret})

    async def check_callback(self, url: str) -> None:
        """See Webhooks.check."""
        await self._webhooks.check(url)

    def rejoin(self, learner_id: str, request: m.JoinRequest) -> m.Learner:
        """A learner reports back under its own token."""
        secret = new_webhook_secret() if request.callback_url else None
        member = self._changed(lambda: self.federation.rejoin(learner_id, request, self.now, secret))
        given = secret if member.webhook_secret == secret else None  # it may have one from before
        return self._shown(member).model_copy(update={"webhook_secret": given})

    def leave(self, learner_id: str) -> None:
        """A learner leaves; its updates are erased once no round needs them."""
        self._changed(lambda: self.federation.leave(learner_id, self.now))

    def heartbeat(self, learner_id: str, beat: m.Heartbeat) -> None:
        """Renew a lease."""
        self._changed(lambda: self.federation.heartbeat(learner_id, beat, self.now))

    async def next_task(
        self, learner_id: str, wait_s: float, gone: Callable[[], asyncio.Future[None]]
    ) -> m.Task | None:
        """The learner's task, waiting for one while its caller is there (`gone()` is done when it is not)."""
        deadline = self.now + wait_s
        hangup: asyncio.Future[None] | None = None
        try:
            while True:
                if self.federation.over:
                    self._told_over.add(learner_id)
                    self._alarm.set()
                task = self._changed(lambda: self.federation.next_task(learner_id, self.now))
                left = deadline - self.now
                if task is not None:
                    return self.federation.task_message(task, self.now)
                if left <= 0 or self._draining:
                    return None
                hangup = hangup or gone()
                if hangup.done():
                    return None
                await self._poll(learner_id, left, hangup)
        finally:
            if hangup:
                hangup.cancel()

    async def _poll(self, learner_id: str, wait_s: float, hangup: asyncio.Future[None]) -> None:
        """Wait for the learner's next wake. A waiting learner is here: its lease does not lapse."""
        self.federation.waits(learner_id, 1)
        try:
            await self._polls.wait(learner_id, wait_s, hangup)
        finally:
            self.federation.waits(learner_id, -1)
            self.federation.renew(learner_id, self.now)

    # ---- results of tasks
    def check_task(self, task_id: str, learner_id: str | None) -> Assignment:
        """See Federation.check."""
        return self.federation.check(task_id, learner_id)

    async def accept_update(self, task: Assignment, update: Buffer, outcome: Outcome) -> tuple[m.Receipt, bool]:
        """Store a checked update of plain tensors and take it into account; a replay or a late one leaves nothing
        behind."""
        key = f"{task.id}-{secrets.token_hex(4)}"
        await self.off_loop(self.store.put, key, [update])
        stored = replace(outcome, blob=key)
        taken = False
        try:
            receipt, taken = self._changed(lambda: self.federation.accept(task.id, stored, self.now))
        finally:
            if not taken:
                await self._calls.owe((self.store.drop, key))
        if taken:
            if not self.federation.postpones(task):
                await self._calls.owe((self.store.remember, task.learner_id, key))
            self.metrics.bytes.labels("up").inc(outcome.size)
        return receipt, taken

    async def accept_initial(
        self, task: Assignment, tensors: tuple[Tensor, ...], outcome: Outcome
    ) -> tuple[m.Receipt, bool]:
        """Make model 0 of a learner's tensors."""
        run = self.federation.runs[task.run_id]
        down, extras = run.config.encoding.down, run.plan.algorithm.extras
        off_loop = self.off_loop if down == PLAIN and not extras else asyncio.to_thread
        info = await off_loop(store_model, self.store, tensors, down, extras)
        await self._hold(info)
        made = Outcome(outcome.fingerprint, outcome.size, outcome.metrics, outcome.metadata, model=info)
        try:
            return self._changed(lambda: self.federation.accept(task.id, made, self.now))
        finally:
            await self._sweep()

    def accept(self, task: Assignment, outcome: Outcome) -> tuple[m.Receipt, bool]:
        """Take a result that leaves nothing in the store: scores, or a replay."""
        return self._changed(lambda: self.federation.accept(task.id, outcome, self.now))

    def fail_task(self, task_id: str, learner_id: str | None, error: str) -> None:
        """A learner could not do a task."""
        self._changed(lambda: self.federation.fail(task_id, learner_id, error, self.now))

    # ---- models
    def model(self, digest: str) -> tuple[ModelInfo, Layout]:
        """What is known of a model that is held; raises UnknownModel."""
        if digest not in self._models:
            raise UnknownModel(f"there is no model {digest}; it may have been replaced by newer ones", model=digest)
        return self._models[digest]

    async def _hold(self, info: ModelInfo) -> None:
        held = [*info.inputs.values(), info]
        layouts = [await asyncio.to_thread(layout_in, self.store, one.digest) for one in held]
        for one, layout in zip(held, layouts, strict=True):
            self._known(one, layout)

    def _known(self, info: ModelInfo, layout: Layout) -> None:
        for one in (info, info.coded):
            if one is not None:
                self._models[one.digest] = (one, layout)
                self._calls.cancel(self.store.drop, one.digest)

    async def put_model(self, digest: str, body: memoryview) -> None:
        """Hold a model that an operator sent."""
        self._calls.cancel(self.store.drop, digest)
        await self.off_loop(self.store.publish, digest, [body])
        await self._hold(ModelInfo(digest, len(body)))
        self._uploaded[digest] = None
        self._uploaded.move_to_end(digest)
        while len(self._uploaded) > UPLOADED_KEPT:
            self._uploaded.popitem(last=False)
        await self._sweep()

    def note_download(self, learner_id: str | None, model: ModelInfo, size: int) -> None:
        """`size` bytes of a model are sent, to a learner or to somebody else."""
        self.metrics.bytes.labels("down").inc(size)
        if learner_id is not None:
            self.federation.note_download(learner_id, model, size)

    # ---- runs
    async def start_run(self, given: Mapping[str, Any], key: str | None) -> RunState:
        """See Federation.start."""

        def held(digest: str) -> ModelInfo | None:
            return ModelInfo(digest, self._models[digest][0].size) if digest in self._models else None

        ready: ModelInfo | None = None
        if not self.federation.active:
            ready = await first_model(given, self.federation.defaults, held, self.store, self.off_loop)
        if ready:
            await self._hold(ready)

        def first(digest: str) -> ModelInfo | None:
            return ready if ready and held(digest) else held(digest)

        return self._changed(lambda: self.federation.start(given, self.now, key, first))

    def stop_run(self, run_id: str, reason: str) -> RunState:
        """See Federation.stop."""
        return self._changed(lambda: self.federation.stop(run_id, reason, self.now))

    def next_round(self, run_id: str, number: int | None) -> RunState:
        """See Federation.next_round."""
        return self._changed(lambda: self.federation.next_round(run_id, number, self.now))

    # ---- the log
    async def follow(self, after: int) -> AsyncIterator[list[m.Event]]:
        """See EventLog.follow."""
        async for batch in self.events.follow(after):
            yield [self.federation.journal.message(event) for event in batch]

    # ---- the end
    def shut_down(self) -> None:
        """The federation is over; the process may end when the agents have heard it, or after a grace."""
        if not self.federation.over:
            self._changed(lambda: self.federation.shut_down(self.now))
            if self._background:
                self._background.create_task(self._stop_when_told())

    def drain(self) -> None:
        """End waiting polls and event streams, so that their connections can close."""
        self._draining = True
        self._polls.wake_all()
        self.events.close()
        self.stopped.set()
        self._alarm.set()

    async def _stop_when_told(self) -> None:
        deadline = self.now + SHUTDOWN_GRACE_S
        while self.now < deadline and not self.stopped.is_set():
            listening = {one.id for one in self.federation.roster if one.state == "active"} - self._told_over
            if not listening:
                break
            await self._wait_for_alarm(min(1.0, deadline - self.now))
        self.stopped.set()

    # ---- how changes are passed on
    def _changed(self, command: Callable[[], T]) -> T:
        """Run a command of the federation and pass on what it left, also when it was refused."""
        try:
            return command()
        finally:
            self._pass_on()

    def _pass_on(self) -> None:
        journal, offers = self.federation.journal, self.federation.offers
        if journal.outbox:
            events = journal.collect()
            self.events.append(events)
            for event in events:
                self.metrics.note(event)
                if event.kind == "learner-left":
                    self._left.add(event.data["id"])
                (log.debug if event.kind in QUIET_EVENTS else log.info)(event.kind, text=event.text)
            self._alarm.set()
            if self._background and any(event.kind in ("learner-left", "run-ended") for event in events):
                self._background.create_task(self._sweep())
        if offers.woken:
            woken, offers.woken = offers.woken, set()
            self._polls.wake(woken)
            for learner_id in woken:
                member = self.federation.roster.find(learner_id)
                news = self.federation.over or offers.first(learner_id)
                if member and member.request.callback_url and news:
                    self._webhooks.call(member)
        if self._background and (job := self.federation.due()):
            self._background.create_task(self._aggregate(job))

    async def _keep_time(self) -> None:
        """Call the federation at its deadlines."""
        while True:
            deadline = self.federation.next_deadline()
            await self._wait_for_alarm(None if deadline is None else deadline - self.now)
            self._changed(lambda: self.federation.tick(self.now))
            await asyncio.sleep(LOOK_S)

    async def _wait_for_alarm(self, seconds: float | None) -> None:
        """Until something changed, or the time is over."""
        alarm = self._alarm
        if seconds is not None and seconds <= 0:
            return
        try:
            async with asyncio.timeout(seconds):
                await alarm.wait()
        except TimeoutError:
            return
        if alarm is self._alarm:
            self._alarm = asyncio.Event()

    async def _aggregate(self, job: Aggregation) -> None:
        try:
            made = await self._calls.repeat(aggregate, job, self.store, time.perf_counter)
        except Exception as error:
            known = isinstance(error, FederationError)
            why = error.detail if isinstance(error, FederationError) else repr(error)
            if self.federation.active:  # else the run has ended meanwhile, and its models may be gone
                log.error("aggregation failed", round=job.round, error=why, exc_info=not known)
            self._changed(lambda: self.federation.aggregation_failed(job, why, self.now))
        else:
            await self._publish(job, made)

    async def _publish(self, job: Aggregation, made: Made) -> None:
        self.metrics.aggregation.observe(made.spent_s)
        for one in ((made.model, made.layout), *made.inputs):
            self._known(*one)
        self._changed(lambda: self.federation.aggregated(job, made.model, made.states, made.spent_s, self.now))
        await self._sweep()

    async def _sweep(self) -> None:
        """Drop the models that nobody needs any more, and the updates of learners that left."""
        kept = self.federation.kept_models() | set(self._uploaded)
        old = [digest for digest in self._models if digest not in kept]
        for digest in old:
            del self._models[digest]
        gone = [one for one in self._left if not self.federation.awaits_update_of(one)]
        self._left.difference_update(gone)
        settled, self.federation.settled = self.federation.settled, []
        await self._calls.owe(
            *((self.store.remember, *update) for update in settled),
            *((self.store.drop, digest) for digest in old),
            *((self.store.erase, one) for one in gone),
        )

    def _shown(self, member: Member) -> m.Learner:
        return self.federation.learner_message(member, self.now)
