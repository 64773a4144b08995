"""What is left behind: federations that are played up to a moment, and how they end there."""

from __future__ import annotations

import contextlib
import hashlib
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx

from tests.witnesses.commands import Controller, agents

LIMIT_S = 40.0  # until a moment comes
KEY = "start-of-the-witness"
NAMES = ("anna", "bert", "carl", "dora")
RECENCY = {"scheduler": "Asynchronous", "aggregation_rule": "FedRec"}


@dataclass
class Stage:
    """A federation on its way to what shall be left of it."""

    at: Controller
    learner: ModuleType
    folder: Path
    commands: Path
    members: list[Any] = field(default_factory=list)
    sent: list[dict[str, Any]] = field(default_factory=list)
    started: dict[str, Any] = field(default_factory=dict)
    next: dict[str, Any] | None = None
    agents: list[str] = field(default_factory=list)

    @property
    def http(self) -> httpx.Client:
        """Of the controller."""
        return self.at.http

    def join(self, count: int = 3) -> None:
        """So many learners enrol."""
        self.members = [self.learner.join(self.http, name, at) for at, name in enumerate(NAMES[:count], 1)]

    def start(self, **config: Any) -> None:
        """A run begins."""
        self.started = {"key": KEY, "config": config}
        self.http.post("/v1/runs", json=config, headers={"Idempotency-Key": KEY}).raise_for_status()

    def submit(self, member: Any) -> None:
        """A learner does its task, and keeps what it sent."""
        task = self.learner.next_task(self.http, member, 5.0)
        media, body = self.learner.answer(self.http, member, task)
        one = {"learner": member.name, "task": task["id"], "media": media, "body": body.hex()}
        self.sent.append(one)
        status, _ = self.learner.send(self.http, member, task["id"], media, body)
        assert status == 201
        self.learner.settled(self.http)

    def prepare(self, member: Any) -> None:
        """A learner has its task and its result, and has not sent it."""
        task = self.learner.next_task(self.http, member, 5.0)
        media, body = self.learner.answer(self.http, member, task)
        self.sent.append({"learner": member.name, "task": task["id"], "media": media, "body": body.hex()})

    def leave(self, member: Any) -> None:
        """A learner leaves for good."""
        self.http.delete(f"/v1/learners/{member.id}", headers=member.headers).raise_for_status()
        self.members.remove(member)

    def until_round(self, number: int) -> None:
        """All take part until the tasks of a round are offered."""
        limit = time.monotonic() + LIMIT_S
        while time.monotonic() < limit:
            for member in self.members:
                run = self.learner.settled(self.http)
                if run["round"] == number and run["state"] == "training":
                    return
                self.learner.turn(self.http, member)
        raise TimeoutError(f"round {number} did not begin")


@dataclass(frozen=True)
class Scenario:
    """A state to be left: flags of the controller, and what happens until it is left."""

    play: Callable[[Stage], None]
    flags: tuple[str, ...] = ("--lineage-length", "0")
    ends: bool = False  # by SIGTERM, else it is killed
    dies_at: str | None = None  # a failpoint, within an aggregation


# ---- what is left
def finished(stage: Stage) -> None:
    """A run that was stopped, one that a learner left and that began from a model that was put, completed."""
    stage.join(4)
    learner, http = stage.learner, stage.http
    body = learner.document(learner.NAMES, learner.initial())
    digest = f"sha256-{hashlib.sha256(body).hexdigest()}"
    headers = {"Content-Type": learner.MSGPACK}
    http.put(f"/v1/models/{digest}", content=body, headers=headers).raise_for_status()
    first = http.post("/v1/runs", json={"name": "stopped", "min_learners": 4, "termination": {"federation_rounds": 9}})
    stage.until_round(2)
    stage.submit(stage.members[0])
    stopped = http.post(f"/v1/runs/{first.json()['id']}/stop", json={"reason": "enough of it"})
    stopped.raise_for_status()
    stage.leave(stage.members[3])
    stage.start(
        name="completed",
        min_learners=3,
        initial_model=digest,
        evaluation={"initial": True},
        termination={"federation_rounds": 3},
    )
    run = learner.go_on(http, stage.members)
    assert run["state"] == "completed", run
    stage.next = {"initial_model": run["model"], "min_learners": 3, "termination": {"federation_rounds": 1}}


def mid_round(stage: Stage) -> None:
    """In round 2 one update is taken, one learner has failed, one has its task, one has not asked for it."""
    stage.join(4)
    stage.start(
        name="mid-round",
        min_learners=4,
        train={"learning_rate": 0.5, "batch": 8},
        train_schedule={"learning_rate": {"kind": "step", "every": 1, "decay": 0.5}},
        evaluation={"initial": True},
        termination={"federation_rounds": 3},
    )
    stage.until_round(2)
    anna, bert, _, dora = stage.members
    stage.submit(anna)
    assert stage.learner.next_task(stage.http, bert, 5.0)["kind"] == "train"
    task = stage.learner.next_task(stage.http, dora, 5.0)
    failed = stage.http.post(f"/v1/tasks/{task['id']}/failure", json={"error": "out of memory"}, headers=dora.headers)
    failed.raise_for_status()


def of_agents(stage: Stage) -> None:
    """The same with agents of the project, which are killed with the controller; their identities are kept."""
    stage.agents = list(NAMES[:3])
    hold = stage.folder.with_name("hold")
    hold.touch()
    state, file = stage.folder.with_name("agents"), Path(stage.learner.__file__ or "")
    with agents(stage.at.url, stage.agents, state, file, stage.commands, WITNESS_HOLD=str(hold)) as started:
        stage.start(name="agents", min_learners=3, termination={"federation_rounds": 3})
        limit = time.monotonic() + LIMIT_S
        while time.monotonic() < limit:
            tasks = stage.http.get("/v1/runs/latest/results").raise_for_status().json()["tasks"]
            second = [one["state"] for one in tasks if (one["kind"], one["round"]) == ("train", 2)]
            if sorted(second) == ["accepted", "offered", "offered"]:
                break
            time.sleep(0.02)
        else:
            raise TimeoutError("\n".join(one.tail() for one in started))
        stage.at.process.end(signal.SIGKILL)
    (state / "alive").unlink(missing_ok=True)


def buffered(stage: Stage) -> None:
    """Asynchronous, FedBuff: some models are made, one update waits for a second one, all train."""
    stage.join()
    stage.start(
        name="buffered",
        min_learners=3,
        scheduler="Asynchronous",
        aggregation_rule="FedBuff",
        aggregation={"buffer_size": 2},
        termination={"federation_rounds": 6},
    )
    _stream(stage, trainings=5)


def recency(stage: Stage) -> None:
    """Asynchronous, FedRec: each update makes a model, and the learner's one before is taken out again."""
    stage.join()
    stage.start(**RECENCY, name="recency", min_learners=3, termination={"federation_rounds": 8})
    _stream(stage, trainings=5)


def left(stage: Stage) -> None:
    """The same; a learner has left whose update is in the rule's state, and the task of another is void, since its
    model became too old."""
    stage.join(4)
    limits = {"schedule": {"max_staleness": 3}, "termination": {"federation_rounds": 9}}
    stage.start(**RECENCY, name="left", min_learners=4, **limits)
    anna, bert, carl, dora = stage.members
    for member in stage.members:  # one of them gives the initial weights
        if stage.learner.settled(stage.http)["state"] == "initializing":
            stage.learner.turn(stage.http, member)
    stage.prepare(carl)
    for member in (anna, bert, dora, anna):
        while stage.learner.turn(stage.http, member) != "train":
            pass
    stage.submit(bert)
    stage.leave(dora)


def _stream(stage: Stage, trainings: int) -> None:
    done, limit = 0, time.monotonic() + LIMIT_S
    while done < trainings - 1 and time.monotonic() < limit:
        for member in stage.members:
            done += done < trainings - 1 and stage.learner.turn(stage.http, member) == "train"
    for member in stage.members:
        task = stage.learner.next_task(stage.http, member)
        if task and task["kind"] == "train":
            stage.submit(member)
            return
    raise AssertionError("nobody is to train")


def initializing(stage: Stage) -> None:
    """The learner that was asked for its initial weights has failed; the next one is asked."""
    stage.join()
    stage.start(name="initializing", min_learners=3, termination={"federation_rounds": 1})
    for member in stage.members:
        if task := stage.learner.next_task(stage.http, member):
            failure = {"error": "no weights here"}
            told = stage.http.post(f"/v1/tasks/{task['id']}/failure", json=failure, headers=member.headers)
            told.raise_for_status()
            return
    raise AssertionError("nobody was asked")


def by_hand(stage: Stage) -> None:
    """Advanced by hand: round 1 was started and is closed, round 2 waits for an operator."""
    stage.join()
    stage.start(name="by hand", min_learners=3, advance="manual", termination={"federation_rounds": 2})
    limit = time.monotonic() + LIMIT_S
    started = False
    while time.monotonic() < limit:
        run = stage.learner.settled(stage.http)
        if run["state"] == "waiting" and started:
            return
        if run["state"] == "waiting":
            stage.http.post("/v1/runs/latest/rounds", json={"round": 1}).raise_for_status()
            started = True
        for member in stage.members:
            stage.learner.turn(stage.http, member)
    raise TimeoutError("round 1 did not close")


def evaluating(stage: Stage) -> None:
    """Model 1 is evaluated while round 2 trains: a score is there, others are not, and no update is."""
    stage.join()
    stage.start(
        name="evaluating",
        min_learners=3,
        evaluation={"overlap": True},
        termination={"federation_rounds": 3},
    )
    limit = time.monotonic() + LIMIT_S
    while time.monotonic() < limit:
        for member in stage.members:
            task = stage.learner.next_task(stage.http, member)
            if task and task["kind"] == "evaluate":
                stage.submit(member)
                return
            stage.learner.turn(stage.http, member)
    raise TimeoutError("model 1 is not evaluated")


def scaffold(stage: Stage) -> None:
    """SCAFFOLD: a control that is not zero travels beside the model of round 3, of which one update is taken."""
    stage.join()
    stage.start(
        name="scaffold",
        min_learners=3,
        algorithm="SCAFFOLD",
        scaling_factor="NumParticipants",
        termination={"federation_rounds": 4},
    )
    stage.until_round(3)
    stage.submit(stage.members[1])


def control_changing(stage: Stage) -> None:
    """SCAFFOLD: dies when model 2 and the next control are about to be made."""
    stage.join()
    stage.start(
        name="control changing",
        min_learners=3,
        algorithm="SCAFFOLD",
        selection={"participation_ratio": 0.6},
        termination={"federation_rounds": 3},
    )
    with contextlib.suppress(httpx.HTTPError):
        stage.until_round(3)
    assert stage.at.process.child.wait(10) == -signal.SIGKILL


def aggregating(stage: Stage) -> None:
    """FedAdam and an adaptive clip, two of four learners in their turn: dies when model 3 is stored and not known."""
    stage.join(4)
    stage.start(
        name="aggregating",
        min_learners=4,
        server_optimizer="FedAdam",
        transforms=[{"name": "AdaptiveClipNorm", "initial_norm": 1.0, "learning_rate": 1.0}],
        selector="RoundRobin",
        selection={"participation_ratio": 0.5},
        termination={"federation_rounds": 5, "evaluation_metric": "accuracy", "patience_rounds": 50},
    )
    with contextlib.suppress(httpx.HTTPError):
        stage.until_round(4)
    assert stage.at.process.child.wait(10) == -signal.SIGKILL


def coded(stage: Stage) -> None:
    """Models travel as bf16, updates as int8 differences, in semi-synchronous rounds with step budgets."""
    stage.join()
    stage.start(
        name="coded",
        min_learners=3,
        scheduler="SemiSynchronous",
        schedule={"semi_sync_lambda": 2.0},
        encoding={"up": "int8", "down": "bf16"},
        termination={"federation_rounds": 3},
    )
    stage.until_round(2)
    stage.submit(stage.members[2])


def in_redis(stage: Stage) -> None:
    """Models and lineages in Redis, FedAvgM, in the middle of round 3."""
    stage.join()
    stage.start(name="redis", min_learners=3, server_optimizer="FedAvgM", termination={"federation_rounds": 4})
    stage.until_round(3)
    stage.submit(stage.members[0])


SCENARIOS = {
    "finished": Scenario(finished, ends=True),
    "mid-round": Scenario(mid_round, flags=()),
    "agents": Scenario(of_agents),
    "initializing": Scenario(initializing),
    "by-hand": Scenario(by_hand),
    "evaluating": Scenario(evaluating),
    "asynchronous": Scenario(buffered),
    "asynchronous-recency": Scenario(recency),
    "asynchronous-left": Scenario(left),
    "scaffold": Scenario(scaffold),
    "scaffold-aggregating": Scenario(control_changing, dies_at="aggregation-begun:2"),
    "aggregating": Scenario(aggregating, dies_at="model-stored:3"),
    "coded": Scenario(coded),
    "redis": Scenario(in_redis, flags=("--model-store", "Redis")),
}
