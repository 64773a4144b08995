"""Every endpoint that takes JSON is sent what is no JSON, or JSON of a wrong shape: a problem, and nothing changes."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from controller_api.http.gate import FAILURE_BYTES, HEARTBEAT_BYTES, JOIN_BYTES, SCORES_BYTES
from controller_api.settings import MEBIBYTE
from tests.conftest import InProcess
from tests.controller_api.driving import begin, join, problem, seen

JSON = {"Content-Type": "application/json"}
TARGETS = ("learners", "heartbeat", "failure", "result", "runs", "stop", "rounds")
LIMITS = {
    "learners": JOIN_BYTES,
    "heartbeat": HEARTBEAT_BYTES,
    "result": SCORES_BYTES,
    "failure": FAILURE_BYTES,
}
MANY = json.dumps({f"k{i}": 1 for i in range(60_000)}).encode()

NOT_JSON = {
    "half an object": b'{"a": 1',
    "half a word": b"nul",
    "two values": b"{} {}",
    "a comment": b"// {}",
    "bytes of no encoding": b"\xff\xfe\xfd",
    "a string that is not UTF-8": b'{"name": "\xff"}',
    "an integer of 5,000 digits": b'{"a": ' + b"9" * 5000 + b"}",
    "lists 100,000 deep": b"[" * 100_000,
    "maps 100,000 deep": b'{"a":' * 100_000,
    "a control character": b'{"a": "\x00"}',
}
WRONG_SHAPE = {
    "a list": b"[]",
    "a string": b'"x"',
    "a number": b"1.5",
    "an unknown key": b'{"nobody knows this": 1}',
    "60,000 unknown keys": MANY,
    "an unknown key without a character": b'{"\\ud800": 1}',
    "lists 900 deep under an unknown key": b'{"a": ' + b"[" * 900 + b"]" * 900 + b"}",
}
HUGE_INT = 10**400


def each(key: str, *values: Any) -> list[dict[str, Any]]:
    """A body for each of these values."""
    return [{key: value} for value in values]


WRONG_VALUES: dict[str, list[dict[str, Any]]] = {
    "learners": [
        *each("name", 5, "", "a" * 65, "a/b", "..\\x", "a\x00b", "a\nb", [], "\ud800"),
        *each("num_training_examples", -1, 2**53 + 1, 1.5, "many", [], float("nan"), HUGE_INT),
        *each("labels", [], {"a": 1}, {"\ud800": "b"}, {"a": "\ud800"}, {"a" * 1001: ""}),
        {"labels": {str(i): "" for i in range(65)}},
        *each("kinds", "train", [1], ["../x"], [""], ["a"] * 65),
        *each("encodings", "none", [None], ["\ud800"]),
        *each("callback_url", 5, "", "ftp://x", "http://", "file:///etc/passwd", "x" * 3000),
    ],
    "heartbeat": [
        *each("task_id", 5, "", "../x", "a" * 65, "\ud800"),
        *each("progress", [], "far", {"epoch": -1}, {"epoch": 1.5}, {"epoch": HUGE_INT}),
        *({"progress": {"loss": value}} for value in (float("nan"), float("inf"), "low", HUGE_INT)),
        {"progress": {"batches": 1}},
    ],
    "failure": [{}, {"error": None}, {"error": 5}, {"error": "x" * 20_001}, {"error": "\ud800"}],
    "result": [
        *each("metrics", [], {"a": "high"}, {"a": []}, {"a": float("nan")}, {"a": float("-inf")}),
        *each("metrics", {"a": HUGE_INT}, {str(i): 0 for i in range(1001)}, {"\ud800": 1}),
        *each("metadata", [], {"a": []}, {"a": {}}, {"a": float("inf")}, {"a": "\ud800"}),
    ],
    "runs": [
        *each("seed", -1, 2**63, 1.5, "x", HUGE_INT),
        *each("train", [], "fast", {"a": float("nan")}, {"a": "\ud800"}, {"\ud800": 1}),
        *({"schedule": {"lease_s": value}} for value in (0, -1, 1e12, "long", float("inf"))),
        *each("transforms", [1], ["clip"], {}),
        {"aggregation": {"unknown": 1}},
        {"initial_model": "../../etc/passwd"},
    ],
    "stop": [{"reason": 5}, {"reason": "x" * 2001}, {"reason": "\ud800"}],
    "rounds": each("round", 0, -1, 1.5, "first", [], HUGE_INT),
}


class Besieged:
    """A federation at work: a manual run in its evaluation, whose learner owes its scores."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http

    async def prepare(self) -> None:
        """Come to that point."""
        (self.anna,) = await begin(self.http, "anna", advance="manual")
        await self.http.post("/v1/runs/current/rounds")
        await self.anna.work()
        self.task = await self.anna.task()
        assert self.task["kind"] == "evaluate"

    async def send(self, target: str, body: bytes) -> httpx.Response:
        """The body to one of the endpoints, all of which would take a good one."""
        if target in ("learners", "runs"):
            return await self.http.post(f"/v1/{target}", content=body, headers=JSON)
        if target in ("stop", "rounds"):
            return await self.http.post(f"/v1/runs/current/{target}", content=body, headers=JSON)
        method, path = {
            "heartbeat": ("POST", f"{self.anna.path}/heartbeat"),
            "failure": ("POST", f"/v1/tasks/{self.task['id']}/failure"),
            "result": ("PUT", f"/v1/tasks/{self.task['id']}/result"),
        }[target]
        return await self.anna.call(method, path, content=body, headers=JSON)


@pytest.fixture
async def besieged(controller: InProcess) -> Besieged:
    """See Besieged."""
    made = Besieged(controller.http)
    await made.prepare()
    return made


def dumped(value: Any) -> bytes:
    """JSON with what Python adds to it: NaN, Infinity, lone surrogates as escapes."""
    return json.dumps(value).encode()


@pytest.mark.parametrize("target", TARGETS)
async def test_what_is_no_json_is_400(besieged: Besieged, target: str) -> None:
    """`not-parseable`, saying where; nothing changes."""
    before = await seen(besieged.http)
    for name, body in NOT_JSON.items():
        answer = await besieged.send(target, body)
        if len(body) > LIMITS.get(target, MEBIBYTE):
            assert answer.status_code == 413, (name, answer.text)
            continue
        assert answer.status_code == 400, (name, answer.text)
        assert "JSON" in problem(answer, 400, "not-parseable")["detail"]
    assert await seen(besieged.http) == before


@pytest.mark.parametrize("target", TARGETS)
async def test_json_of_a_wrong_shape_is_422(besieged: Besieged, target: str) -> None:
    """`invalid-request` or `invalid-config` in an answer of bounded length; nothing changes."""
    if target == "runs":
        await besieged.http.post("/v1/runs/current/stop")
    before = await seen(besieged.http)
    for name, body in WRONG_SHAPE.items():
        answer = await besieged.send(target, body)
        assert answer.status_code in ((413,) if len(body) > LIMITS.get(target, MEBIBYTE) else (400, 422)), name
        assert len(answer.content) < 20_000
        assert problem(answer, answer.status_code, answer.json()["type"].removeprefix("/errors/"))["detail"]
    assert await seen(besieged.http) == before


@pytest.mark.parametrize("target", TARGETS)
async def test_wrong_values_are_named(besieged: Besieged, target: str) -> None:
    """422 (or 400 for what JSON itself cannot hold) that names the key; nothing changes, and all is still readable."""
    if target == "runs":
        await besieged.http.post("/v1/runs/current/stop")
    before = await seen(besieged.http)
    for given in WRONG_VALUES[target]:
        full = {"termination": {"federation_rounds": 1}, **given} if target == "runs" else given
        answer = await besieged.send(target, dumped(full))
        assert answer.status_code in (400, 413, 422), (given, answer.text)
        told = problem(answer, answer.status_code, answer.json()["type"].removeprefix("/errors/"))
        named = next(iter(given), "error")
        assert answer.status_code in (400, 413) or named in told["detail"] or "JSON" in told["detail"], told
    assert await seen(besieged.http) == before


@pytest.mark.parametrize("depth", [33, 100, 250, 300, 500])
async def test_a_deep_configuration_is_refused_before_a_run_exists(controller: InProcess, depth: int) -> None:
    """What could be read but never shown again is not taken."""
    deep = b'{"termination": {"federation_rounds": 1}, "train": ' + b'{"a":' * depth + b"1" + b"}" * depth + b"}"
    answer = await controller.http.post("/v1/runs", content=deep, headers=JSON)
    assert "deeper" in problem(answer, 422, "invalid-config")["detail"]
    assert (await controller.http.get("/v1/runs")).json() == []


@pytest.mark.parametrize(
    ("body", "key"),
    [
        (b'{"metrics": {"a": 0.5, "a": 0.9}}', "a"),
        (b'{"metrics": {"a": 0.5, "\\u0061": 0.9}}', "a"),
        (b'{"metadata": {"num_evaluation_examples": 1, "num_evaluation_examples": 9}}', "num_evaluation_examples"),
        (b'{"metrics": {"a": 0.5}, "metrics": {"a": 0.9}}', "metrics"),
        (b'{"metrics": {' + b", ".join([b'"b": 1'] * 15_000) + b"}}", "b"),
    ],
)
async def test_a_key_of_a_result_that_stands_twice_is_refused(besieged: Besieged, body: bytes, key: str) -> None:
    """Nobody knows which of the two counts: 422 that names it, and the result may be sent again, right."""
    before = await seen(besieged.http)
    assert repr(key) in problem(await besieged.send("result", body), 422, "invalid-request")["detail"]
    assert await seen(besieged.http) == before
    assert (await besieged.send("result", b'{"metrics": {"a": 0.5}}')).status_code == 201


async def test_a_count_beyond_reason_is_no_weight(controller: InProcess) -> None:
    """Scores with 10^400 or 1.7e308 rows are combined plainly, (0.2 + 0.4) / 2, and the results can still be read."""
    anna, ben = await begin(controller.http, "anna", "ben", termination={"federation_rounds": 1})
    await anna.work()
    await ben.work()
    for one, accuracy, rows in ((anna, 0.2, HUGE_INT), (ben, 0.4, 1.7e308)):
        task = await one.task()
        body = dumped({"metrics": {"accuracy": accuracy}, "metadata": {"num_evaluation_examples": rows}})
        answer = await one.call("PUT", f"/v1/tasks/{task['id']}/result", content=body, headers=JSON)
        assert answer.status_code == 201
    results = (await controller.http.get("/v1/runs/latest/results")).json()
    assert results["run"]["state"] == "completed"
    assert results["rounds"][0]["evaluation_metrics"]["combined"] == pytest.approx({"accuracy": 0.3})


async def test_the_largest_floats_have_no_mean_but_do_no_harm(controller: InProcess) -> None:
    """The mean is as large as they are, or null when no float can hold it."""
    members = await begin(controller.http, "anna", "ben", "cleo", termination={"federation_rounds": 1})
    for one in members:
        await one.work()
    for one in members:
        assert (await one.score(await one.task(), loss=1.7976931348623157e308)).status_code == 201
    (closed,) = (await controller.http.get("/v1/runs/latest/rounds")).json()
    assert closed["evaluation_metrics"]["combined"]["loss"] in (None, pytest.approx(1.7976931348623157e308))


async def test_names_are_text_and_nothing_else(controller: InProcess) -> None:
    """A name full of markup or of another script is taken and given back as it is."""
    for name in ("<script>alert(1)</script>".replace("/", ""), "Анна", "安娜 🤖", "a' OR 1=1 --", "%2e%2e"):
        await join(controller.http, name)
        assert name in [one["name"] for one in (await controller.http.get("/v1/learners")).json()]
