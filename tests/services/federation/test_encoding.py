"""Who gets which form of a model, and may send which form of an update: the run's, as far as a learner can do it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services import messages as m
from services.errors import InvalidConfig
from services.federation import Assignment, ModelInfo, Outcome, RunState
from services.federation.representation import task_message
from tests.services.fleet import Fleet, model

ALL = ["none", "bf16", "int8", "topk"]


def coded(text: str) -> ModelInfo:
    """A model that something stands for."""
    return replace(model(text), coded=model(f"{text}, smaller"))


def training(fleet: Fleet, **encoding: object) -> RunState:
    """A run whose round 1 is in training, from a model that is coded when `down` says so."""
    run = fleet.start(encoding=encoding)
    (asked,) = [task for name in fleet.ids if (task := fleet.poll(name))]
    first = coded("first") if encoding.get("down", "none") != "none" else model("first")
    fleet.federation.accept(asked.id, Outcome("first", 5, model=first), fleet.now)
    return run


def shown(fleet: Fleet, task: Assignment) -> m.Task:
    """A task as its learner gets it."""
    return task_message(fleet.federation.runs[task.run_id], task, 30, fleet.now)


def test_each_learner_gets_what_it_can_read_and_is_asked_for_what_it_can_write() -> None:
    """Both directions by themselves; who names nothing is given and sends plain tensors."""
    fleet = Fleet("stranger")
    fleet.join("all", encodings=ALL)
    fleet.join("reader", encodings=["none", "int8"])
    fleet.join("writer", encodings=["none", "topk"])
    training(fleet, up="topk", down="int8", topk_ratio=0.05)
    told = {name: shown(fleet, fleet.task(name)) for name in fleet.ids}
    plain, small = coded("first").digest, model("first, smaller").digest
    digests = {name: one.model.digest for name, one in told.items() if one.model}
    assert digests == {"stranger": plain, "all": small, "reader": small, "writer": plain}
    encodings = {name: one.encoding and one.encoding.model_dump() for name, one in told.items()}
    assert encodings == {
        "stranger": None,
        "all": {"up": "topk", "topk_ratio": 0.05},
        "reader": {"up": "none", "topk_ratio": None},  # a difference, since the model was coarse
        "writer": {"up": "topk", "topk_ratio": 0.05},
    }


def test_a_learner_evaluates_what_it_was_given() -> None:
    """The evaluation names the same form as the training does; its result is no update and has no encoding."""
    fleet = Fleet("plain")
    fleet.join("all", encodings=ALL)
    training(fleet, up="int8", down="bf16")
    for name in fleet.ids:
        fleet.do(name)
    job = fleet.federation.due()
    assert job is not None
    assert job.plan.encoding.down == "bf16"
    fleet.federation.aggregated(job, coded("second"), (None, None), 0.01, fleet.now)
    asked = {name: shown(fleet, fleet.task(name, "evaluate")) for name in fleet.ids}
    assert {name: one.model and one.model.digest for name, one in asked.items()} == {
        "plain": coded("second").digest,
        "all": model("second, smaller").digest,
    }
    assert [one.encoding for one in asked.values()] == [None, None]


def test_a_run_without_encoding_asks_for_none() -> None:
    """Whatever its learners can do."""
    fleet = Fleet()
    fleet.join("all", encodings=ALL)
    training(fleet)
    told = shown(fleet, fleet.task("all"))
    assert (told.encoding, told.model and told.model.digest) == (None, model("first").digest)


def test_the_model_that_was_given_may_be_fetched_and_counts_by_its_size() -> None:
    """An open task names the smaller document, not the one that it stands for."""
    fleet = Fleet()
    fleet.join("all", encodings=ALL)
    run = training(fleet, down="int8")
    offers, given = fleet.federation.offers, model("first, smaller")
    assert offers.naming(fleet.ids["all"], coded("first").digest) is None
    assert offers.naming(fleet.ids["all"], given.digest) is fleet.task("all")
    fleet.federation.offers.note_download(fleet.ids["all"], given, given.size)
    assert (run.rounds[0].bytes.down, shown(fleet, fleet.task("all")).model) == (
        given.size,
        m.Reference(digest=given.digest, url=f"../../models/{given.digest}", size=given.size),
    )


def test_what_stands_for_a_model_is_kept_while_tasks_may_name_it() -> None:
    """Of the newest model and those of open rounds; the previous and the best are kept whole only."""
    fleet = Fleet()
    fleet.join("all", encodings=ALL)
    run = training(fleet, down="int8")
    first, second = coded("first"), coded("second")
    assert run.kept_models() == {first.digest, model("first, smaller").digest}
    fleet.do("all")
    job = fleet.federation.due()
    assert job is not None
    fleet.federation.aggregated(job, second, (None, None), 0.01, fleet.now)
    both = {first.digest, second.digest, model("first, smaller").digest, model("second, smaller").digest}
    assert run.kept_models() == both
    fleet.do("all", "evaluate", accuracy=0.5)
    assert run.kept_models() == both - {model("first, smaller").digest}


@pytest.mark.parametrize(
    "encoding",
    [
        {"up": "gzip"},
        {"down": "topk"},
        {"topk_ratio": 0},
        {"topk_ratio": 1.5},
        {"upward": "int8"},
        {"up": None, "down": 8},
    ],
    ids=str,
)
def test_an_encoding_that_is_none_is_refused_with_the_run(encoding: dict[str, object]) -> None:
    """Unknown names, sparse models, ratios that are no share."""
    fleet = Fleet("anna")
    with pytest.raises(InvalidConfig, match="encoding"):
        fleet.start(encoding=encoding)
