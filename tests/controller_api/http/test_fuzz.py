"""Junk for every operation of /openapi.json: each refusal is a problem document, none is a 5xx, none changes anything.

The junk follows the document: known keys with wrong values, known parameters, known media types. It is the same junk in
every run of the tests.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import hypothesis.strategies as st
import msgpack
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings

from controller_api.app import create_app
from controller_api.http import describe
from controller_api.http.routes import tasks as hot
from services import ModelStoreConfig
from tests.conftest import InProcess, in_process
from tests.controller_api.driving import MSGPACK, Member, bearer, begin, problem, settings

EXAMPLES = 100
DOCUMENT = describe(create_app(settings(), model_store_config=ModelStoreConfig()))
OPERATIONS = [(method, path) for path, known in DOCUMENT["paths"].items() for method in known]
TYPES = ["application/json", MSGPACK, "application/octet-stream", "text/plain", "", "application/json; charset=x"]

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=-(10**30), max_value=10**30)
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["", "current", "latest", "../x", "\ud800", "\x00", "NaN", 2**53 + 1, 2**64 - 1, 1e308, -0.0])
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
words = st.text(st.characters(blacklist_categories=["Cs"], min_codepoint=32, max_codepoint=255), max_size=20)


def keys_of(operation: dict[str, Any]) -> list[str]:
    """The keys that the operation's JSON body knows, those of the tables in it too."""
    found: list[str] = []
    wanted = [operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})]
    while wanted:
        schema = wanted.pop()
        if "$ref" in schema:
            wanted.append(DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
        wanted += schema.get("anyOf", [])
        found += [key for key in schema.get("properties", {}) if key not in found]
        wanted += [one for one in schema.get("properties", {}).values() if "$ref" in one or "anyOf" in one]
    return found


def bodies(operation: dict[str, Any]) -> st.SearchStrategy[bytes]:
    """Bodies that look more or less like those of the operation; never empty."""
    known = keys_of(operation) or ["x"]
    ends = {"termination": {"federation_rounds": 1}} if "termination" in known else {}
    maps = st.dictionaries(st.sampled_from(known) | st.text(max_size=8), values, min_size=1, max_size=4)
    weights = st.fixed_dictionaries(
        {"tensors": values | st.lists(st.fixed_dictionaries({"name": scalars, "dtype": words, "data": st.binary()}))},
        optional={"metadata": values, "metrics": values, "extra": values},
    )
    return (
        (maps | maps.map(lambda value: {**ends, **value}) | values).map(lambda value: json.dumps(value).encode())
        | weights.filter(_packable).map(msgpack.packb)
        | st.binary(min_size=1, max_size=60)
    )


def _packable(value: Any) -> bool:
    try:
        return bool(msgpack.packb(value))
    except (ValueError, OverflowError):
        return False


class Target:
    """A federation at work, in a loop of its own, that all examples of an operation are thrown at."""

    def __init__(self) -> None:
        self.runner = asyncio.Runner()
        self._context = in_process(settings())
        self.running: InProcess = self.runner.run(self._context.__aenter__())
        self.member: Member = self.runner.run(begin(self.running.http, "anna", "ben"))[0]
        self.task = self.runner.run(self.member.task())

    def end(self) -> None:
        """Release it."""
        self.runner.run(self._context.__aexit__(None, None, None))
        self.runner.close()

    def state(self) -> object:
        """What every change of the federation changes, without the clocks."""
        runtime = self.running.app.state.runtime
        told = [event.kind for event in runtime.events.after(0) if event.kind != "update-refused"]  # once a task
        return told, list(runtime.models._known), list(runtime.store._blobs)

    def get(self, path: str) -> int:
        """The status of a path."""
        return self.runner.run(self.running.http.get(path)).status_code

    def stop(self) -> None:
        """End the run, so that another one may start."""
        self.runner.run(self.running.http.post("/v1/runs/latest/stop"))

    def path(self, template: str, name: str | None) -> str:
        """A path that exists, or one with `name` as its id."""
        ids = {
            "learner_id": self.member.id,
            "task_id": self.task["id"],
            "run_id": "current",
            "number": "1",
            "digest": self.task["model"]["digest"],
        }
        return template.format(**{key: value if name is None else name for key, value in ids.items()})


@pytest.fixture
def target(monkeypatch: pytest.MonkeyPatch) -> Iterator[Target]:
    """See Target; polls do not wait."""
    monkeypatch.setattr(hot, "MAX_WAIT_S", 0.0)
    made = Target()
    yield made
    made.end()


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_junk_is_refused(target: Target, method: str, path: str) -> None:
    """Whatever comes: no 5xx; a refusal is a problem and changes nothing; what was taken can be shown ever after."""
    operation = DOCUMENT["paths"][path][method]
    takes_body = "requestBody" in operation
    query = [one["name"] for one in operation.get("parameters", []) if one["in"] == "query"] or ["x"]
    own_headers = [one["name"] for one in operation.get("parameters", []) if one["in"] == "header"]
    words_without_end = words.filter(lambda text: not text.strip().isdecimal())  # a number would begin a stream

    @hypothesis_settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(
        body=bodies(operation) if takes_body or method == "post" else st.just(b""),
        media=st.sampled_from(TYPES),
        name=st.none() | st.none() | st.text("abc019_-.%/ é", min_size=1, max_size=70),
        parameters=st.dictionaries(st.sampled_from(query), words, max_size=2),
        token=st.sampled_from([None, None, target.member.token]) | words.filter(str.strip),
        last=words_without_end,
    )
    def throw(body: bytes, media: str, name: str | None, parameters: dict[str, str], token: str, last: str) -> None:
        headers: dict[str, Any] = {header: last.encode("latin-1") for header in own_headers}
        headers = {**headers, "Last-Event-ID": last.encode("latin-1"), **({"Content-Type": media} if media else {})}
        headers |= {key: value.encode("latin-1") for key, value in bearer(token).items()}
        before = target.state()
        call = target.running.http.request(
            method.upper(), target.path(path, name), content=body, headers=headers, params=parameters
        )
        answer = target.runner.run(call)
        assert answer.status_code < 500, answer.text
        if answer.status_code >= 400 and method == "head":
            assert target.state() == before
        elif answer.status_code >= 400:
            problem(answer, answer.status_code, answer.json()["type"].removeprefix("/errors/"))
            assert target.state() == before
        elif method != "get":
            assert {target.get(path) for path in ("/v1/federation", "/v1/runs", "/v1/runs/latest/results")} == {200}
        if (method, path) == ("post", "/v1/runs"):
            target.stop()

    if (method, path) == ("post", "/v1/runs"):
        target.stop()
    throw()
