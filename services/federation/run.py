"""The state of one run, what its learners did in it, and what the contract shows of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Literal

from .. import messages as m
from ..aggregation import State, is_weighted
from ..algorithms import own_key
from ..config import RunConfig
from ..scheduling import streams
from ..selection import Candidate
from ..termination import cutoff_s, is_better
from ..transforms import Bounds
from .allowance import Allowance
from .controls import Controls, Shift
from .job import Share
from .plan import Plan
from .rounds import Assignment, Iso, ModelInfo, RoundState

Phase = Literal["waiting", "initializing", "training", "aggregating", "evaluating", "completed", "stopped", "failed"]
USUAL_METRICS = {"accuracy": "max", "loss": "min"}  # what "best" means when no termination metric is configured


@dataclass
class History:
    """What each learner did in a run so far, as selectors see it: how often it was a member of a round, and the last
    number that it reported of each metric. Read from the run's rounds, so there is nothing to save.

    Learners are known by name: one that enrols again under its name goes on where it was.
    """

    chosen: Counter[str] = field(default_factory=Counter)
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    read: int = 0  # rounds that are in it

    def follow(self, rounds: Sequence[RoundState]) -> None:
        """Take in the rounds that have closed their training since the last call."""
        for one in rounds[self.read :]:
            if one.state == "training":
                return
            self.chosen.update(task.learner for task in one.train.values())
            for task in one.accepted:
                told = task.outcome.metrics if task.outcome else {}
                numbers = {name: value for name, value in told.items() if value is not None}
                if numbers:
                    self.metrics.setdefault(task.learner, {}).update(numbers)
            self.read += 1

    def of(self, candidate: Candidate) -> Candidate:
        """The candidate with what is known of it."""
        name = candidate.name
        return replace(candidate, chosen=self.chosen[name], metrics=self.metrics.get(name, {}))


@dataclass
class Stream:
    """What an asynchronous run keeps beside its rounds: tasks by what became of them.

    A round of an asynchronous run is one community model and the updates in it.
    """

    training: dict[str, Assignment] = field(default_factory=dict)  # by learner id
    arrived: list[Assignment] = field(default_factory=list)  # accepted, oldest first
    ended: list[Assignment] = field(default_factory=list)  # failed or void
    resting: set[str] = field(default_factory=set)  # ids of learners that failed since the newest model was made
    newest: dict[str, Share] = field(default_factory=dict)  # by learner id, of those in a community model
    left: bool = False  # a learner left whose update is in the rule's state
    since: float = 0.0  # when the newest community model was made

    def tasks(self) -> Iterator[Assignment]:
        """Those that are in no round."""
        yield from self.ended
        yield from self.arrived
        yield from self.training.values()

    def deadlines(self) -> Iterator[float]:
        """When tasks are given up."""
        yield from (task.deadline for task in self.training.values())

    def sort(self) -> bool:
        """Move the tasks that are done out of `training`; whether there were any."""
        done = [(key, task) for key, task in self.training.items() if task.state != "offered"]
        for key, task in done:
            del self.training[key]
            if task.state == "accepted":
                self.arrived.append(task)
                continue
            self.ended.append(task)
            if task.state == "failed":
                self.resting.add(key)
        return bool(done)

    def forget(self, learner_id: str) -> None:
        """A learner left: its update counts no more in what is made of everybody's newest."""
        self.left = self.newest.pop(learner_id, None) is not None or self.left
        self.resting.discard(learner_id)


MAX_DEPARTED = 1000  # learners that left are shown of a run: whoever comes and goes makes it no larger


@dataclass
class RunState:
    """A run, from its configuration to its end. Rounds are kept with their tasks."""

    id: str
    config: RunConfig
    config_text: str  # the same, canonical, as it was stored when the run began
    plan: Plan
    started_at: float
    state: Phase = "waiting"
    hold: Literal["learners", "operator"] = "learners"  # what `waiting` waits for
    wait_deadline: float = 0.0
    stream: Stream = field(default_factory=Stream)  # of an asynchronous run
    initial: list[Assignment] = field(default_factory=list)  # init tasks given so far, the last one is current
    draw: list[Candidate] = field(default_factory=list)  # whom to ask next for initial weights
    model: ModelInfo | None = None
    previous: ModelInfo | None = None
    best: tuple[int, float, ModelInfo] | None = None  # round, score, model
    rounds: list[RoundState] = field(default_factory=list)
    zeroth: RoundState | None = None  # the evaluation of model 0, when asked for
    open: list[RoundState] = field(default_factory=list)  # not closed: one, or two when evaluation overlaps training
    requested: bool = False  # an operator asked for the next round of a run that is advanced by hand
    aggregator_state: State | None = None
    optimizer_state: State | None = None
    bounds: list[Bounds] = field(default_factory=list)  # of the transforms: at first, and after each aggregation
    scores: list[tuple[int, float | None]] = field(default_factory=list)  # round, watched metric of its model
    history: History = field(default_factory=History)
    departed: dict[str, m.Learner] = field(default_factory=dict)  # by id, as they were when they left: the newest
    controls: Controls = field(default_factory=Controls)  # of a run whose algorithm keeps something of each learner
    shifts: dict[int, Shift] = field(default_factory=dict)  # by round: how they came to be what they are
    allowance: Allowance = field(default_factory=Allowance)
    participants: dict[str, m.Learner] = field(default_factory=dict)  # by id, who was there when it ended
    reason: str | None = None
    ended_by: str | None = None
    ended_at: float | None = None

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.state in m.TERMINAL

    @property
    def round(self) -> int:
        """Number of the newest round; 0 before the first."""
        return self.rounds[-1].number if self.rounds else 0

    @property
    def aggregations(self) -> int:
        """Community models made so far, model 0 not counted."""
        return sum(one.model is not None for one in self.rounds)

    @property
    def finished(self) -> int:
        """Number of the newest round that made a model or failed to; the next task to train is of the one after it."""
        return max((one.number for one in self.rounds if one.model or one.failure), default=0)

    def made(self, first: int, stop: int | None = None) -> int:
        """How many models the rounds made that are numbered `first` up to before `stop`."""
        return sum(one.model is not None for one in self.rounds[first - 1 : None if stop is None else stop - 1])

    @property
    def failures(self) -> int:
        """Rounds in a row that failed, up to now."""
        outcomes = (one.failure for one in reversed(self.rounds) if one.model or one.failure)
        return sum(1 for _ in takewhile(lambda failure: failure is not None, outcomes))

    def fruitless(self) -> set[str]:
        """Names of the learners that were drawn for these rounds."""
        newest = self.rounds[len(self.rounds) - self.failures :]
        return {task.learner for one in newest for task in one.train.values()}

    def tasks(self) -> Iterator[Assignment]:
        """Every task of the run, oldest round first."""
        yield from self.initial
        yield from self.stream.tasks()
        for one in ([self.zeroth] if self.zeroth else []) + self.rounds:
            yield from one.train.values()
            yield from one.evaluate.values()

    def begin(self, one: RoundState) -> None:
        """A new round."""
        self.rounds.append(one)
        self.open.append(one)
        self.state, self.requested = "training", False

    def forget(self, learner_id: str) -> None:
        """A learner left: what it sent counts no more in what is made of everybody's newest."""
        self.stream.forget(learner_id)
        self.forget_holders(lambda key: key == learner_id)

    def forget_holders(self, left: Callable[[str], bool]) -> None:
        """Learners of these ids have left; some may hold something of an algorithm, or be about to."""
        if self.plan.algorithm.extras:
            pending = {task.learner_id for one in self.open for task in one.accepted}
            gone = {key for key in {*self.controls.held, *pending} if left(key)}
            self.controls.forget(gone, pending)

    def wait_for_learners(self, now: float) -> None:
        """Wait, within a bound, until enough learners are here."""
        self.state, self.hold = "waiting", "learners"
        self.wait_deadline = now + self.config.schedule.join_deadline_s

    def extend(self, by_s: float) -> None:
        """All its waits for learners end that much later; those for its tasks are the tasks' own."""
        self.wait_deadline += by_s
        self.stream.since += by_s
        for one in self.open:
            one.deadline += by_s
            one.evaluation_deadline += by_s

    def deadlines(self) -> Iterator[float]:
        """Moments at which this run must be looked at although nothing happened."""
        yield self.started_at + cutoff_s(self.config.termination)
        if self.state == "waiting" and self.hold == "learners":
            yield self.wait_deadline
        if self.state == "initializing":
            yield self.initial[-1].deadline
        if self.state == "training" and streams(self.plan.scheduler):
            yield from self.stream.deadlines()
            if not any(one.state == "aggregating" for one in self.open):
                yield self.stream.since + self.config.schedule.round_deadline_s
        for one in self.open:
            if one.state == "training":
                yield one.deadline
            elif one.state == "evaluating":
                yield one.evaluation_deadline

    def watched(self, reported: Collection[str]) -> tuple[str, str] | None:
        """Name and mode of the metric that says which model is best: the run's own, else accuracy, else loss."""
        signals = self.config.termination
        if signals.evaluation_metric:
            return signals.evaluation_metric, signals.evaluation_metric_mode
        return next(((name, mode) for name, mode in USUAL_METRICS.items() if name in reported), None)

    def reported(self) -> set[str]:
        """Names of all metrics that were reported of evaluated models."""
        tasks = (task for one in self.rounds for task in one.evaluate.values())
        by_driver = {name for one in self.rounds for name in one.driver_scores or ()}
        return by_driver | {name for task in tasks if task.outcome for name in task.outcome.metrics}

    def note_score(self, one: RoundState) -> None:
        """Take the scores of an evaluated round into account."""
        combined = one.evaluation.combined
        watched = self.watched(combined)
        score = combined.get(watched[0]) if watched else None
        self.scores.append((one.number, score))
        if score is None or watched is None or one.model is None:
            return
        if self.best is None or is_better(score, self.best[1], watched[1]):
            self.best = (one.number, score, one.model)

    def verifiable(self, rounds: int) -> list[ModelInfo]:
        """The models of which, with updates, the newest `rounds` community models were made: 0 for all, none for 1."""
        made = self._newest(rounds) if rounds != 1 else []
        found: list[ModelInfo | None] = [one.parent for one in made]
        if streams(self.plan.scheduler):
            found += [task.model for one in made for task in one.train.values()]
        return [info for info in found if info is not None]

    def kept_states(self, rounds: int = 1) -> set[str]:
        """Keys of the states to keep: those that the run goes on with, and those for what is `verifiable`."""
        kept = [] if self.over else self._newest(1)
        if rounds != 1:
            kept += self._newest(rounds + 1 if rounds else 0)
        held = [] if self.over else list(self.controls.held.values())
        held += [one for shift in self.shifts.values() for one in shift.held]
        beside = {own_key(name, one.blob) for name in self.plan.algorithm.extras for one in held if one.blob}
        return {key for one in kept for key in one.states if key} | beside

    def shift_of(self, one: RoundState) -> Shift | None:
        """How what goes with the model changes in a round whose updates are complete, if anything goes with it."""
        return self.controls.shift_of(one, is_weighted(self.plan.aggregator)) if self.plan.algorithm.extras else None

    def take_shift(self, one: RoundState, shift: Shift | None, rounds: int) -> None:
        """The round made a model; shifts of the newest `rounds` are kept for what is `verifiable`, 0 for all."""
        if not self.plan.algorithm.extras:
            return
        self.controls.take(one, shift)
        if shift is not None:
            self.shifts[one.number] = shift
        for number in [number for number in self.shifts if 0 < rounds <= one.number - number]:
            del self.shifts[number]

    def kept_models(self, rounds: int = 1) -> set[str]:
        """Digests of the documents to keep: the newest two community models, the best, what open rounds use, and what
        is `verifiable`."""
        old = self.verifiable(rounds)
        offered = [self.model, *(info for one in self.open for info in (one.parent, one.model))]
        offered += [task.model for task in self.stream.tasks() if task.state in ("offered", "accepted")]
        offered += [task.model for one in self.open if one.model is None for task in one.train.values()]
        kept = [*offered, *old, self.previous, self.best[2] if self.best else None]
        coded = [info.coded for info in offered if info is not None]
        inputs = [one for info in offered if info and not self.over for one in info.inputs.values()]
        inputs += [one for info in old for one in info.inputs.values()]
        return {info.digest for info in (*kept, *coded, *inputs) if info is not None}

    def _newest(self, rounds: int) -> list[RoundState]:
        """So many rounds that made a model, 0: all."""
        return [one for one in self.rounds if one.model][-rounds:]

    def forget_departed(self) -> list[str]:
        """Of the learners that left only the newest are shown; the ids of those that are forgotten now."""
        old = list(self.departed)[: max(0, len(self.departed) - MAX_DEPARTED)]
        for learner_id in old:
            del self.departed[learner_id]
        return old

    def message(self, iso: Iso, waiting_for: str | None) -> m.Run:
        """This run as the contract shows it."""
        return m.Run(
            id=self.id,
            name=self.config.name,
            state=self.state,
            reason=self.reason,
            waiting_for=waiting_for,
            config=self.config,
            round=self.round,
            model=self.model.digest if self.model else None,
            best_model=self.best[2].digest if self.best else None,
            best_round=self.best[0] if self.best else None,
            started_at=iso(self.started_at),
            ended_at=iso(self.ended_at) if self.ended_at is not None else None,
        )

    def results(self, iso: Iso, waiting_for: str | None, here: Iterable[m.Learner]) -> m.Results:
        """Everything about this run; before its end only the closed rounds, and the learners that are `here`."""
        shown = [one for one in self.rounds if self.over or one.state == "closed"]
        return m.Results(
            run=self.message(iso, waiting_for),
            rounds=[one.message(iso) for one in shown],
            tasks=[task.record() for task in self.tasks()],
            learners=sorted([*self.departed.values(), *here], key=lambda learner: learner.name),
            model=self.model.digest if self.model else None,
            global_iteration=self.aggregations,
            initial_evaluation=self.zeroth.evaluation if self.zeroth else None,
            ended_by=self.ended_by,
        )
