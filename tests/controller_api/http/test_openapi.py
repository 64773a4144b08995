"""The OpenAPI document and its page: complete, true, and usable without any other origin or prefix."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import warnings
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
import uvicorn
from pydantic import TypeAdapter

from controller_api.app import create_app
from controller_api.http import describe, guide
from controller_api.http.gate import POLICIES
from controller_api.webhooks.delivery import BODY
from services import ModelStoreConfig
from services import messages as m
from services.algorithms import ALGORITHMS
from services.config import RunConfig
from services.encoding import CODECS
from services.errors import FederationError
from services.rest import sign
from tests.conftest import InProcess, until
from tests.controller_api.driving import MSGPACK, bearer, begin, join, model, problem, settings, weights

QFEDAVG = "loss_before_training"
SEMI = {"scheduler": "SemiSynchronous", "schedule": {"semi_sync_lambda": 1.0}}
PARTIAL = "application/partial-upload"
PAGES = {"/", "/docs", "/docs/protocol", "/openapi.json", "/static/{name}"}  # for people, not part of the contract
NEVER_ANSWERED = {  # raised by clients, or told as the reason of a failed run
    *("unreachable", "unexpected-answer", "not-of-this-contract", "aggregation-failed"),
    *("proxy-refused", "proxy-unavailable"),
}
GROUPS = {"conflict", "gone"}  # classes above those that are raised
TAKES_WEIGHTS = {("put", "/v1/models/{digest}"), ("put", "/v1/tasks/{task_id}/result")}
TAKES_PARTS = {("patch", "/v1/tasks/{task_id}/result")}
SHOWN_BY_HEAD = {("head", "/v1/models/{digest}"), ("head", "/v1/runs/{run_id}/model")}  # elsewhere it is told in words
GIVES_WEIGHTS = {("get", "/v1/models/{digest}"), ("get", "/v1/runs/{run_id}/model")}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """The document, as code."""
    return describe(create_app(settings(), model_store_config=ModelStoreConfig()))


def operations(document: dict[str, Any]) -> Iterator[tuple[tuple[str, str], dict[str, Any]]]:
    """Every operation by method and path."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield (method, path), operation


def walk(value: Any) -> Iterator[dict[str, Any]]:
    """Every map in the document."""
    if isinstance(value, dict):
        yield value
        for item in value.values():
            yield from walk(item)
    elif isinstance(value, list):
        for item in value:
            yield from walk(item)


# ---- complete
def test_it_describes_every_call_that_the_gate_lets_through(document: dict[str, Any]) -> None:
    """Neither a call is missing nor one too many."""
    gate = {(method.lower(), path) for path, known in POLICIES.items() if path not in PAGES for method in known}
    assert {key for key, _ in operations(document)} == gate | SHOWN_BY_HEAD


def test_every_operation_is_told_in_words(document: dict[str, Any]) -> None:
    """A summary, one tag, a unique id, a description of each answer, and each parameter of its path."""
    ids = [operation["operationId"] for _, operation in operations(document)]
    assert len(set(ids)) == len(ids)
    for (_, path), operation in operations(document):
        assert operation["summary"]
        assert len(operation["tags"]) == 1
        assert all(answer["description"] for answer in operation["responses"].values())
        named = {one["name"] for one in operation.get("parameters", []) if one["in"] == "path"}
        assert named == set(re.findall(r"{(\w+)}", path))


def test_who_may_call_is_told(document: dict[str, Any]) -> None:
    """The bearer scheme and the roles stand on exactly the calls that need a token, with their 401 and 403."""
    assert document["components"]["securitySchemes"]["token"] == {"type": "http", "scheme": "bearer"}
    for (method, path), operation in operations(document):
        roles = POLICIES[path]["GET" if (method, path) in SHOWN_BY_HEAD else method.upper()].roles
        assert operation["security"] == ([{"token": []}] if roles else [])
        assert ({"401", "403"} <= set(operation["responses"])) == bool(roles)
        assert all(role in operation["description"] for role in roles)


def test_every_error_is_told(document: dict[str, Any]) -> None:
    """Each name of the error tree stands in the table of the introduction, or is none that a call answers with."""
    rows = re.findall(r"^\| `([a-z-]+)` \| (\d{3}) \|", document["info"]["description"], re.MULTILINE)
    assert {name for name, _ in rows} == set(FederationError.by_name) - NEVER_ANSWERED - GROUPS
    statuses = dict(rows)
    known = ("unauthenticated", "forbidden", "unknown-task", "round-closed", "task-void", "too-large", "disk-full")
    assert [statuses[name] for name in known] == ["401", "403", "404", "409", "410", "413", "507"]


def test_every_error_of_a_call_is_a_problem_by_its_name(document: dict[str, Any]) -> None:
    """Each answer of 4xx and 5xx names its errors, says of each what it means, and has an example of it."""
    told: set[str] = set()
    for key, operation in operations(document):
        for status, answer in operation["responses"].items():
            if status < "400" or key == ("get", "/readyz"):
                continue
            content = answer["content"]["application/problem+json"]
            assert content["schema"] == {"$ref": "#/components/schemas/Problem"}
            assert set(re.findall(r"`([a-z-]+)`: \w", answer["description"])) == set(content["examples"])
            assert all(f"{example['value']['status']}" == status for example in content["examples"].values())
            told |= set(content["examples"])
    everywhere = {"method-not-allowed", "head-too-large", "head-too-slow"}  # of no call in particular
    assert told == set(FederationError.by_name) - NEVER_ANSWERED - GROUPS - everywhere


def test_weights_are_told_as_binary(document: dict[str, Any]) -> None:
    """Their media type on the calls that take and give them; JSON on the result of an evaluation."""
    takes = {key for key, one in operations(document) if MSGPACK in one.get("requestBody", {}).get("content", {})}
    gives = {key for key, one in operations(document) if MSGPACK in one["responses"].get("200", {}).get("content", {})}
    parts = {key for key, one in operations(document) if PARTIAL in one.get("requestBody", {}).get("content", {})}
    assert (takes, gives, parts) == (TAKES_WEIGHTS, GIVES_WEIGHTS, TAKES_PARTS)
    sent = [document["paths"][path][method]["requestBody"]["content"] for method, path in TAKES_WEIGHTS]
    assert all(list(content) == ["application/octet-stream", MSGPACK] for content in sent)
    scores = document["paths"]["/v1/tasks/{task_id}/scores"]["put"]["requestBody"]["content"]
    assert set(scores) == {"application/json"}
    binary = [content[MSGPACK]["schema"] for content in walk(document) if MSGPACK in content]
    assert all((schema["type"], schema["format"]) == ("string", "binary") for schema in binary)


# ---- what a learner meets that the calls alone do not say
ASKED: list[tuple[dict[str, Any], dict[str, Any], str]] = [  # a run, what else an update tells, what is then missed
    ({}, {}, "num_training_examples"),
    ({"scaling_factor": "NumCompletedBatches"}, {}, "num_completed_batches"),
    ({"aggregation_rule": "FedNova"}, {"num_training_examples": 1}, "num_completed_batches"),
    (
        {"aggregation_rule": "QFedAvg", "aggregation": {"q": 1, "learning_rate": 0.1}},
        {"num_training_examples": 1},
        QFEDAVG,
    ),
    (SEMI, {"num_training_examples": 1}, "processing_ms_per_epoch"),
    (SEMI, {"num_training_examples": 1, "processing_ms_per_epoch": 1}, "processing_ms_per_batch"),
]


@pytest.mark.parametrize(("config", "metadata", "missing"), ASKED)
async def test_what_a_run_asks_of_its_updates_is_told(
    controller: InProcess, document: dict[str, Any], config: dict[str, Any], metadata: dict[str, Any], missing: str
) -> None:
    """The key that a refusal names stands in the introduction, beside the part of the run that wants it."""
    (anna,) = await begin(controller.http, "anna", **config)
    body = msgpack.packb({"metadata": metadata, "tensors": msgpack.unpackb(model(*weights(1.0)))["tensors"]})
    refused = await anna.put(await anna.task(), body)
    assert problem(refused, 422, "invalid-weight")["key"] == missing
    named = next((value for key, value in config.items() if isinstance(value, str)), "NumTrainingExamples")
    rows = [line for line in document["info"]["description"].splitlines() if line.startswith("| `") and named in line]
    assert any(f"`{missing}`" in row for row in rows)


def test_codecs_and_control_variates_are_told(document: dict[str, Any]) -> None:
    """How a coded tensor of each form is read, with its keys; what SCAFFOLD sends; how whole numbers are averaged."""
    text = document["info"]["description"]
    for name in set(CODECS) - {"none"}:
        assert re.search(rf"^\| `{name}` \| .*(bytes?|numbers)", text, re.MULTILINE), name
    assert all(f"`{key}`" in text for key in ("scale", "indices", "extra", "inputs", "control", "webhook_secret"))
    assert all(f"`{name}`" in text for name in set(ALGORITHMS) - {"None"})
    assert '"delta": true' in text
    assert "rounded half to even" in text


async def test_the_order_of_judgement_is_as_it_is_told(controller: InProcess, document: dict[str, Any]) -> None:
    """Each call is wrong in several ways at once: the one that stands first in the introduction is answered."""
    text = document["info"]["description"]
    steps = re.findall(r"^(\d)\. (.*?)(?=^\d\. |^$)", text[text.index("### Errors") :], re.MULTILINE | re.DOTALL)
    place = {status: int(step) for step, words in reversed(steps) for status in re.findall(r"\b4\d\d\b", words)}
    anna, ben = await begin(controller.http, "anna", "ben")
    task = await anna.task()
    wrong = bearer("nobody knows this token")
    text_type, long = {"Content-Type": "text/plain"}, b"x" * (1 << 18)
    path = f"/v1/tasks/{task['id']}/scores"
    answers = [
        await controller.http.put("/v1/tasks/not an id/scores", headers={**wrong, **text_type}, content=long),
        await controller.http.post(path, headers={**wrong, **text_type}, content=long),
        await ben.call("POST", path, headers=text_type, content=long),
        await ben.call("PUT", path, headers=text_type, content=long),
        await anna.call("PUT", path, headers=text_type, content=long),
        await anna.call("PUT", path, headers=text_type, content=b"x"),
        await anna.call("PUT", path, headers={"Content-Type": "application/json"}, content=b"x"),
    ]
    statuses = [answer.status_code for answer in answers]
    assert statuses == [404, 401, 405, 403, 413, 415, 415]
    told = [place[str(status)] for status in statuses if status != 403]
    assert told == sorted(told)


def test_names_of_problems_are_told_for_programs(document: dict[str, Any]) -> None:
    """An extensible list, so that a client that was generated today takes the names of tomorrow."""
    kind = document["components"]["schemas"]["Problem"]["properties"]["type"]
    rows = re.findall(r"^\| `([a-z-]+)` \| (\d{3}) \|", document["info"]["description"], re.MULTILINE)
    assert kind["x-extensible-enum"] == [f"/errors/{name}" for name, _ in rows]
    assert "enum" not in kind


async def test_what_a_download_may_say_is_told_and_works(controller: InProcess, document: dict[str, Any]) -> None:
    """Range, If-Range, If-None-Match and HEAD stand with their answers on every call that gives weights."""
    (anna,) = await begin(controller.http, "anna")
    digest = (await anna.task())["model"]["digest"]
    part, held = {"Range": "bytes=0-9", "If-Range": f'"{digest}"'}, {"If-None-Match": f'"{digest}"'}
    for method, path in sorted(GIVES_WEIGHTS | SHOWN_BY_HEAD):
        operation, gets = document["paths"][path][method], method == "get"
        named = {one["name"] for one in operation["parameters"] if one["in"] == "header"}
        assert named == ({*part, *held} if gets else {*held})
        for headers, status in [({}, 200), (part, 206), (held, 304), ({"Range": "bytes=99999-"}, 416)]:
            if gets or status in (200, 304):
                url = path.format(digest=digest, run_id="current")
                answer = await controller.http.request(method, url, headers=headers)
                assert answer.status_code == status
                assert {name.lower() for name in operation["responses"][str(status)]["headers"]} <= set(answer.headers)


async def test_webhooks_are_told(document: dict[str, Any]) -> None:
    """What the controller sends is what is described: the headers of its signature, the body."""
    (operation,) = [methods["post"] for methods in document["webhooks"].values()]
    assert {one["name"] for one in operation["parameters"]} == set(sign("whsec_" + "A" * 32, "msg_1", 1, b"{}"))
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    assert json.loads(BODY) == {"type": schema["properties"]["type"]["const"]}


# ---- true
def test_references_lead_somewhere_and_every_schema_is_used(document: dict[str, Any]) -> None:
    """No dangling `$ref`, no orphan."""
    known = set(document["components"]["schemas"])
    used = {one["$ref"].removeprefix("#/components/schemas/") for one in walk(document) if "$ref" in one}
    assert used == known


def test_every_example_is_valid(document: dict[str, Any]) -> None:
    """An example is what its schema says, by the classes that the controller itself reads and writes with."""
    checked = 0
    for content in walk(document):
        if "schema" not in content or "$ref" not in content["schema"]:
            continue
        given = [content["example"]] if "example" in content else []
        given += [one["value"] for one in content.get("examples", {}).values()]
        name = content["schema"]["$ref"].rpartition("/")[2]
        kind = RunConfig if name == "RunConfig" else getattr(m, name)
        for example in given:
            TypeAdapter(kind).validate_python(example, extra="forbid" if name != "Problem" else None)
            checked += 1
    assert checked > 50


async def test_examples_of_requests_are_taken(controller: InProcess, document: dict[str, Any]) -> None:
    """What a reader copies from the page works: each JSON example is sent to its call in a federation at work."""
    anna, _ = await begin(controller.http, "anna", "ben")
    train = await anna.task()
    done = set()
    for (method, path), operation in operations(document):
        for media, content in operation.get("requestBody", {}).get("content", {}).items():
            for example in [content["example"]] if "example" in content else []:
                ids = {"learner_id": anna.id, "task_id": train["id"]}
                body = {**example, **({"task_id": train["id"]} if "task_id" in example else {})}
                answer = await anna.call(method.upper(), path.format(**ids), json=body, headers={"Content-Type": media})
                expected = 415 if path.endswith("/scores") else 200 if path == "/v1/learners" else 204
                assert answer.status_code == expected, answer.text  # this task is a training: scores are not its result
                done.add(path)
    assert {path.rpartition("/")[2] for path in done} == {"learners", "heartbeat", "failure", "scores"}


async def test_the_answers_are_as_described(controller: InProcess, document: dict[str, Any]) -> None:
    """Task, receipt, learner: the keys of a real answer are those of the schema and of the example."""
    anna, _ = await begin(controller.http, "anna", "ben")
    task = await anna.task()
    told = document["paths"]["/v1/learners/{learner_id}/task"]["get"]["responses"]["200"]["content"]["application/json"]
    assert set(task) == set(told["example"]) == set(document["components"]["schemas"]["Task"]["properties"])
    snippet = re.search(r"```python\n(.*?)```", document["info"]["description"], re.DOTALL)
    assert snippet
    scope: dict[str, Any] = {"values": [1.0] * 6, "model": msgpack.packb({"tensors": []}), "msgpack": msgpack}
    exec("import struct\n" + snippet[1], scope)  # the document of the introduction
    learner = await join(controller.http, "cleo")
    refused = await learner.put(task, scope["body"])
    assert refused.status_code == 403
    shape = await anna.put(task, scope["body"])
    assert (shape.status_code, shape.json()["type"]) == (422, "/errors/shape-mismatch")  # a document, of another model


# ---- usable
async def test_the_page_and_all_that_it_needs_come_from_the_controller(controller: InProcess) -> None:
    """`/docs` names only relative files that are there, and the document that it loads is relative too."""
    page = (await controller.http.get("/docs")).text
    needed = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(needed) >= 5
    assert not [one for one in needed if one.startswith("/") or "://" in one]
    for one in needed:
        assert (await controller.http.get(f"/{one}")).status_code == 200
    assert 'url: "./openapi.json"' in (await controller.http.get("/static/docs.js")).text


def test_its_server_is_where_the_document_was_found(document: dict[str, Any]) -> None:
    """A relative URL, which by OpenAPI 3.1 is resolved against the document's own."""
    assert [server["url"] for server in document["servers"]] == ["."]


@contextlib.asynccontextmanager
async def below_a_prefix(prefix: str) -> AsyncIterator[tuple[str, list[str]]]:
    """The controller behind a proxy that takes a prefix away; its URL, and the paths that were asked of the proxy."""
    app = create_app(settings(), model_store_config=ModelStoreConfig())
    asked: list[str] = []

    async def proxy(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            asked.append(scope["path"])
            scope = {**scope, "path": scope["path"].removeprefix(prefix)}
        await app(scope, receive, send)

    server = uvicorn.Server(uvicorn.Config(proxy, port=0, log_level="warning", timeout_graceful_shutdown=1))
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(server.serve())

        async def started() -> bool:
            return server.started

        await until(started)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}{prefix}", asked
        server.should_exit = True


async def test_try_it_out_works_below_a_prefix(tmp_path: Path) -> None:
    """In a real browser: the page below /some/prefix sends its calls there, with the token that was typed in."""
    playwright = pytest.importorskip("playwright.async_api")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        warnings.warn("THE PAGE WAS NOT TRIED IN A BROWSER: no Chromium was found", stacklevel=1)
        pytest.skip("no Chromium was found")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    async with below_a_prefix("/some/prefix") as (url, asked), playwright.async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=chromium, args=[*flags, "--disable-sync"])
        page = await browser.new_page()
        await page.goto(f"{url}/docs")
        operation = page.locator("#operations-federation-healthz")
        await operation.locator(".opblock-summary").click()
        await operation.locator("button.execute").click()
        await playwright.expect(operation.locator(".request-url")).to_contain_text(f"{url}/healthz", timeout=15_000)
        await playwright.expect(operation.locator(".live-responses-table")).to_contain_text('"ok"', timeout=15_000)
        await browser.close()
    assert asked
    assert all(path.startswith("/some/prefix/") for path in asked)
    assert "/some/prefix/healthz" in asked


def test_the_steps_of_a_learner_are_a_list() -> None:
    """Each begins a line of its own, or the page shows them as one paragraph."""
    assert re.findall(r"^(\d)\. ", guide.LEARNER, re.MULTILINE) == list("1234567")
