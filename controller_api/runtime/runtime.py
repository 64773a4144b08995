"""The async shell around the federation: its clock, its waiting polls, its event log, its store, its aggregations.

One event loop owns the Federation, so there are no locks. Every command goes through `_changed`, which passes on what
the federation left: events to the log, wakes to polls and webhooks, an aggregation to a thread. Every command is given
`now`, and whoever asks for that after the loop stood still has moved all leases and deadlines first.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext, suppress
from dataclasses import replace
from typing import Any, TypeVar

import structlog

from services import messages as m
from services.aggregation import Imprecise
from services.engine import Made, aggregate, store_model
from services.errors import AggregationFailed, DiskFull, FederationError, UnknownModel
from services.failures import of_error
from services.federation import (
    Aggregation,
    Assignment,
    EnrolmentRate,
    Federation,
    Member,
    ModelInfo,
    Outcome,
    RoundState,
    RunState,
)
from services.process import reach
from services.state import Recorder
from services.store import ModelStore
from services.weights import PLAIN, Buffer, Tensor, drop_idle

from ..clock import TICK_S, Clock
from ..durability import Folder, Models, StoreCalls, Writer
from ..settings import Settings
from ..tokens import hashed, new_token, new_webhook_secret
from ..transport import Pace, Rules, Slots, Uploads
from ..webhooks import Webhooks
from .events import EventLog, tell
from .metrics import Metrics
from .shutdown import Shutdown
from .sweeper import Sweeper
from .waiting import Alarm, Polls

T = TypeVar("T")
log = structlog.get_logger("controller")
LOOK_S = 0.002  # deadlines are looked at no more often, however many changes there are
LOOKS = 5  # how many writes somebody who only looks waits for
IDLE_S = 30.0  # how long buffers of uploads wait for the next ones, or up to twice as long
STALL_TOLD_S = 1.0  # a shorter stall is no line of the log
STALL_KEPT_S = 1.0  # stalls that add up to less are not written down: what a restart is told of time is no closer


class Runtime:
    """State and background work of one controller process."""

    def __init__(
        self,
        settings: Settings,
        store: ModelStore,
        federation: Federation,
        metrics: Metrics,
        webhooks: Webhooks,
        folder: Folder | None,
    ) -> None:
        """`folder` is where the federation's state is kept; None: it ends with the process."""
        self.settings = settings
        self.store = store
        self.federation = federation
        self.events = EventLog(federation.journal.count)
        self.metrics = metrics
        self.clock = Clock()
        self._moved_by_s, self._written_s = 0.0, 0.0  # stalls by which deadlines are moved; and were when written down
        self.slots = Slots(settings.upload_slots)
        self.pace = Pace(Rules.of(settings), self.slots)
        self.uploads = Uploads(settings.upload_slots, self.clock)
        self._enrolments = EnrolmentRate(settings.join_rate, settings.join_burst)
        self.walking = asyncio.Lock()  # of documents whose values are read one by one
        self.stopped = asyncio.Event()  # the process may end
        self._folder = folder
        self.writer: Writer | None = None
        if folder:
            recorder = Recorder(federation)
            self.writer = Writer(recorder, federation.changes, folder, store.make_room, self._sweep_soon)
        wall = folder.ownership.time() if folder else time.time()
        self._ahead_s = wall - time.monotonic() - federation.journal.epoch
        self.calls = StoreCalls(store, self.stopped)
        self.off_loop = self.calls.off_loop
        self.models = Models(federation, store, self.calls)
        self.model = self.models.find
        self._sweeper = Sweeper(federation, self.models, self.uploads, store, self.calls, self.kept)
        self._polls = Polls()
        self._ending = Shutdown(federation, self.stopped)
        self._alarm = Alarm()
        self._webhooks = webhooks
        self.check_callback, self.check_task = webhooks.check, federation.check
        self._background: asyncio.TaskGroup | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The background work: deadlines, aggregations, webhooks, writing down. Ends all of it on leaving."""
        kept = self.writer.running() if self.writer else nullcontext()
        async with kept, asyncio.TaskGroup() as group, self._webhooks.running():
            self._background = group
            if self._folder:
                self._sweeper.left |= await self._folder.resume(self.federation, self.models, self.store, self.now)
                self._changed(lambda: self.federation.tick(self.now))
            if self.writer:
                self.writer.resumed()
            work = (self._keep_clock(), self._keep_time(), self._drop_idle(), self.calls.retry_owed())
            tasks = [group.create_task(one) for one in work]
            try:
                yield
            finally:
                self.drain()
                for one in tasks:
                    one.cancel()
                self.clock.rest()
                self._background = None
        self.calls.close()
        self.store.close()

    @property
    def now(self) -> float:
        """Seconds on the federation's monotonic clock. If the controller stood still since this was asked last, leases
        and deadlines are moved by as much: none has ended that a learner could not keep."""
        now, lost_s = time.monotonic() + self._ahead_s, self.clock.lost()
        if stalled_s := lost_s - self._moved_by_s:
            self._moved_by_s = lost_s
            write = lost_s - self._written_s >= STALL_KEPT_S
            self._written_s = lost_s if write else self._written_s
            self.federation.extend(stalled_s, now, write)
        return now

    async def kept(self) -> None:
        """Wait until all that happened so far outlives this process (with a durable store); see Writer.kept."""
        if self.writer:
            await self.writer.kept()

    async def written(self) -> None:
        """Wait a moment until what there is to see outlives this process; a full disk keeps nobody from looking."""
        if self.writer:
            for _ in range(LOOKS):
                if self.writer.all_written:
                    return
                with suppress(FederationError):
                    await self.writer.kept()

    # ---- learners
    async def join(self, request: m.JoinRequest, key: str | None) -> m.Learner:
        """Enrol a learner; its token is in the answer, once. The same `key` again: the answer was lost."""
        token, secret = new_token(), new_webhook_secret() if request.callback_url else None
        known = hashed(key).hex() if key else None
        if self.federation.roster.enrolled_with(known) is None:
            self._enrolments.take(self.now)
        member = self._changed(lambda: self.federation.join(request, hashed(token), self.now, secret, known))
        reach("learner-joined")
        try:
            await self.kept()
        except FederationError:
            self._changed(lambda: self.federation.leave(member.id, self.now))  # nobody has its token
            raise
        reach("learner-kept")
        return self._shown(member).model_copy(update={"token": token, "webhook_secret": member.webhook_secret})

    def note_used(self, member: Member) -> None:
        """A learner has shown its token for the first time."""
        self._changed(lambda: self.federation.roster.use_token(member))

    async def rejoin(self, learner_id: str, request: m.JoinRequest) -> m.Learner:
        """A learner reports back under its own token."""
        secret = new_webhook_secret() if request.callback_url else None
        member = await self._lasting(lambda: self.federation.rejoin(learner_id, request, self.now, secret))
        given = secret if member.webhook_secret == secret else None  # it may have one from before
        return self._shown(member).model_copy(update={"webhook_secret": given})

    async def leave(self, learner_id: str) -> None:
        """A learner leaves; its updates are erased once no round needs them."""
        await self._lasting(lambda: self.federation.leave(learner_id, self.now))

    async def readmit(self, learner_id: str) -> m.Learner:
        """A learner that was put aside gets tasks again."""
        return self._shown(await self._lasting(lambda: self.federation.readmit(learner_id, self.now)))

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
                    self._ending.tell(learner_id)
                elif self.stopped.is_set():
                    return None
                task = self._changed(lambda: self.federation.next_task(learner_id, self.now))
                left = deadline - self.now
                if task is not None:
                    reach("tasks-offered")
                    await self.kept()
                    return self.federation.task_message(task, self.now)
                if left <= 0:
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
    async def accept_update(self, task: Assignment, update: Buffer, outcome: Outcome) -> tuple[m.Receipt, bool]:
        """Store a checked update of plain tensors and take it into account; a replay or a late one leaves nothing
        behind."""
        key = f"{task.id}-{secrets.token_hex(4)}"
        try:
            await self.off_loop(self.store.put, key, [update])
        except DiskFull:
            raise
        except BaseException:
            self.calls.owe_later(self.store.drop, key)  # it may be there nevertheless
            raise
        reach("update-stored")
        stored, taken = replace(outcome, blob=key), False
        try:
            receipt, taken = self._changed(lambda: self.federation.accept(task.id, stored, self.now))
        finally:
            if not taken:
                await self.calls.owe((self.store.drop, key))
        reach("update-counted")
        try:
            await self.kept()
        finally:
            if taken and not self.federation.postpones(task):
                await self.calls.owe((self.store.remember, task.learner_id, key))
        reach("update-kept")
        if taken:
            self.metrics.bytes.labels("up").inc(outcome.size)
        return receipt, taken

    async def accept_initial(
        self, task: Assignment, tensors: Sequence[Tensor], outcome: Outcome
    ) -> tuple[m.Receipt, bool]:
        """Make model 0 of a learner's tensors."""
        run = self.federation.runs[task.run_id]
        down, extras = run.config.encoding.down, run.plan.algorithm.extras
        off_loop = self.off_loop if down == PLAIN and not extras else asyncio.to_thread
        async with self.calls.order:
            info = await off_loop(store_model, self.store, tensors, down, extras)
            await self.models.hold(info)
        made = Outcome(outcome.fingerprint, outcome.size, outcome.metrics, outcome.metadata, model=info)
        try:
            return await self.accept(task, made)
        finally:
            await self._sweeper.sweep()

    async def accept(self, task: Assignment, outcome: Outcome) -> tuple[m.Receipt, bool]:
        """Take a result that leaves nothing in the store: scores, or a replay."""
        return await self._lasting(lambda: self.federation.accept(task.id, outcome, self.now))

    async def refuse_update(self, task_id: str, why: str) -> None:
        """A learner's update was found to be invalid; a full disk does not hide from the learner what is wrong."""
        with suppress(FederationError):
            await self._lasting(lambda: self.federation.refuse(task_id, why, self.now))

    async def fail_task(self, task_id: str, learner_id: str | None, error: str, traceback: str | None) -> None:
        """A learner could not do a task."""
        await self._lasting(lambda: self.federation.fail(task_id, learner_id, error, self.now, traceback))

    # ---- models
    async def put_model(self, digest: str, body: memoryview) -> None:
        """Hold a model that an operator sent."""
        await self.models.put(digest, body)
        self._changed(lambda: self.federation.uploaded.add(digest, len(body)))
        await self._sweeper.sweep()
        await self.kept()

    async def document(self, digest: str) -> memoryview:
        """The bytes of a model that is held; a run ends when the store lost one that it needs. Raises UnknownModel."""
        try:
            return await self.off_loop(self.store.get, digest)
        except UnknownModel as error:
            run, why = self.federation.active, error.detail
            if run and digest in run.kept_models():
                self._changed(lambda: self.models.lost(run, why, self.now))
            raise

    def note_download(self, learner_id: str | None, model: ModelInfo, size: int) -> None:
        """`size` bytes of a model are sent, to a learner or to somebody else."""
        self.metrics.bytes.labels("down").inc(size)
        if learner_id is not None:
            self.federation.offers.note_download(learner_id, model, size)

    # ---- runs
    async def start_run(self, given: Mapping[str, Any], key: str | None) -> RunState:
        """See Federation.start."""
        first = await self.models.first(given, self.off_loop)
        run = self._changed(lambda: self.federation.start(given, self.now, key, first))
        reach("run-started")
        try:
            await self.kept()
        except FederationError as error:
            if key is None:  # with a key the call may be repeated: it gets this run, once it is written
                why = f"nobody was told of its start: {error.detail}"
                self._changed(lambda: self.federation.stop(run.id, why, self.now))
            raise
        return run

    def run_message(self, run: RunState) -> m.Run:
        """A run as callers see it; what it waits for includes a model store or a disk that cannot take what is new."""
        shown, held_up = self.federation.run_message(run, self.now), self.calls.held_up
        if held_up is None and self.writer is not None:
            held_up = self.writer.held_up
        if held_up is None or shown.waiting_for is None:
            return shown
        return shown.model_copy(update={"waiting_for": f"{shown.waiting_for}; {held_up.text(time.monotonic())}"})

    async def stop_run(self, run_id: str, reason: str) -> RunState:
        """See Federation.stop."""
        return await self._lasting(lambda: self.federation.stop(run_id, reason, self.now))

    async def next_round(self, run_id: str, number: int | None) -> RunState:
        """See Federation.next_round."""
        return await self._lasting(lambda: self.federation.next_round(run_id, number, self.now))

    async def take_scores(self, run_id: str, number: int, scores: m.Metrics) -> RoundState:
        """See Stages.take_scores."""
        return await self._lasting(lambda: self.federation.take_scores(run_id, number, scores, self.now))

    async def follow(self, after: int) -> AsyncIterator[list[m.Event]]:
        """See EventLog.follow."""
        async for batch in self.events.follow(after):
            await self.written()
            yield [self.federation.journal.message(event) for event in batch]

    # ---- the end
    async def shut_down(self) -> None:
        """The federation is over; the process may end when the agents have heard it, or after a grace."""
        if not self.federation.over:
            self._changed(lambda: self.federation.shut_down(self.now))
            if self._background:
                self._background.create_task(self._ending.wait(self.clock.ran))
        await self.kept()

    def drain(self) -> None:
        """End waiting polls and event streams, so that their connections can close."""
        self._polls.wake_all()
        self.events.close()
        self.stopped.set()
        self._alarm.ring()

    # ---- how changes are passed on
    def _changed(self, command: Callable[[], T]) -> T:
        """Run a command of the federation and pass on what it left, also when it was refused."""
        try:
            return command()
        finally:
            self._pass_on()

    async def _lasting(self, command: Callable[[], T]) -> T:
        """The same, once what it did outlives this process."""
        result = self._changed(command)
        await self.kept()
        return result

    def _pass_on(self) -> None:
        offers = self.federation.offers
        if told := tell(self.federation.journal, self.events, self.metrics):
            self._alarm.ring()
            self._sweeper.left |= {event.data["id"] for event in told if event.kind == "learner-left"}
            if any(event.kind in ("learner-left", "run-ended") for event in told):
                self._sweep_soon()
        (self.writer.note if self.writer else self.federation.changes.clear)()
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

    async def _keep_clock(self) -> None:
        """Touch the clock, and tell of stalls."""
        while True:
            if stalled_s := self.clock.touch():
                self.metrics.stalled.inc(stalled_s)
                told = log.warning if stalled_s >= STALL_TOLD_S else log.debug
                told("stood still: leases and deadlines are that much later", seconds=round(stalled_s, 2))
                self._changed(lambda: self.federation.tick(self.now))
            await asyncio.sleep(TICK_S)

    async def _drop_idle(self) -> None:
        """Buffers of uploads that nobody needs for a while go."""
        while True:
            await asyncio.sleep(IDLE_S)
            drop_idle()

    async def _keep_time(self) -> None:
        """Call the federation at its deadlines."""
        while True:
            deadline = self.federation.next_deadline()
            await self._alarm.wait(None if deadline is None else deadline - self.now)
            self._changed(lambda: self.federation.tick(self.now))
            await asyncio.sleep(LOOK_S)

    async def _aggregate(self, job: Aggregation) -> None:
        try:
            reach("aggregation-begun")
            made = await self.calls.repeat(aggregate, job, self.store, time.perf_counter)
        except Imprecise:
            self._changed(lambda: self.federation.begin_anew(job))
        except Exception as error:
            if self.stopped.is_set() and isinstance(error, FederationError) and error.retryable:
                return  # the next process does it anew
            why, traceback = (error.detail, None) if isinstance(error, FederationError) else of_error(error)
            if self.federation.active:  # else the run has ended meanwhile, and its models may be gone
                log.error("aggregation failed", round=job.round, error=why, exception=traceback)
            self.models.know_states(job.own_keys)
            if isinstance(error, AggregationFailed):  # of these updates; others may do
                self._changed(lambda: self.federation.round_failed(job, why, self.now))
                await self._sweeper.sweep()
            else:
                self._changed(lambda: self.federation.aggregation_failed(job, why, self.now))
        else:
            await self._publish(job, made)

    async def _publish(self, job: Aggregation, made: Made) -> None:
        self.metrics.aggregation.observe(made.spent_s)
        for one in ((made.model, made.layout), *made.inputs):
            self.models.know(*one)
        self.models.ordinary[made.model.digest] = made.ordinary
        self.models.know_states([*filter(None, made.stored), *job.own_keys])
        reach("model-stored")
        self._changed(
            lambda: self.federation.aggregated(job, made.model, made.states, made.spent_s, self.now, made.stored)
        )
        reach("round-changed")
        await self._sweeper.sweep()
        reach("round-kept")

    def _sweep_soon(self) -> None:
        if self._background:
            self._background.create_task(self._sweeper.sweep())

    def _shown(self, member: Member) -> m.Learner:
        return self.federation.learner_message(member, self.now)
