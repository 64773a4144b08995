"""Models: holding them, and serving them as HTTP does (RFC 9110, sections 8, 13 and 14)."""

from __future__ import annotations

import httpx
import pytest

from tests.conftest import InProcess, in_process
from tests.controller_api.driving import MSGPACK, begin, digest_of, join, model, problem, settings, weights

BODY = model(*weights(3.0))
DIGEST = digest_of(BODY)
PATH = f"/v1/models/{DIGEST}"
SIZE = len(BODY)
AS_WEIGHTS = {"Content-Type": MSGPACK}


async def held(controller: InProcess) -> httpx.AsyncClient:
    """The controller, with a model that an operator put."""
    assert (await controller.http.put(PATH, content=BODY, headers=AS_WEIGHTS)).status_code == 201
    return controller.http


# ---- putting
async def test_a_model_is_put_under_its_digest(controller: InProcess) -> None:
    """201 with a reference and its Location, both relative to the request; put again: 200 and the same reference."""
    first = await controller.http.put(PATH, content=BODY, headers=AS_WEIGHTS)
    again = await controller.http.put(PATH, content=BODY, headers=AS_WEIGHTS)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json() == {"digest": DIGEST, "url": DIGEST, "size": SIZE}
    for reference in (first.headers["location"], first.json()["url"]):
        assert (await controller.http.get(first.url.join(reference))).content == BODY


async def test_a_body_that_is_not_what_its_digest_names_is_refused(controller: InProcess) -> None:
    """422 `digest-mismatch` with both digests, and nothing is held under either."""
    wrong = model(*weights(4.0))
    told = problem(await controller.http.put(PATH, content=wrong, headers=AS_WEIGHTS), 422, "digest-mismatch")
    assert (told["expected"], told["got"]) == (DIGEST, digest_of(wrong))
    for digest in (DIGEST, digest_of(wrong)):
        problem(await controller.http.get(f"/v1/models/{digest}"), 404, "unknown-model")


async def test_what_is_no_model_is_not_held(controller: InProcess) -> None:
    """422 although the digest is right: no document, no tensors."""
    for body in (b"\xc1", model()):
        path = f"/v1/models/{digest_of(body)}"
        problem(await controller.http.put(path, content=body, headers=AS_WEIGHTS), 422, "malformed-update")
        problem(await controller.http.get(path), 404, "unknown-model")


# ---- getting
async def test_a_model_is_served_byte_for_byte_with_a_strong_validator(controller: InProcess) -> None:
    """The document as it was put; its digest is the ETag; for ever fresh, in private caches only."""
    http = await held(controller)
    answer = await http.get(PATH)
    assert answer.content == BODY
    assert answer.headers["etag"] == f'"{DIGEST}"'
    assert answer.headers["content-type"] == MSGPACK
    assert answer.headers["content-length"] == str(SIZE)
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["cache-control"] == "private, max-age=31536000, immutable"


async def test_shared_caches_may_hold_models_when_the_operator_says_so() -> None:
    """`cacheable_models` makes it public; the model of a run, whose path names other models later, stays private."""
    async with in_process(settings(cacheable_models=True)) as running:
        http = await held(running)
        assert (await http.get(PATH)).headers["cache-control"] == "public, max-age=31536000, immutable"
        await begin(http, "anna")
        assert (await http.get("/v1/runs/current/model")).headers["cache-control"].startswith("private")


async def test_head_says_what_get_would(controller: InProcess) -> None:
    """The same headers without the body."""
    http = await held(controller)
    head, get = await http.head(PATH), await http.get(PATH)
    assert (head.status_code, head.content) == (200, b"")
    assert dict(head.headers) == dict(get.headers)


@pytest.mark.parametrize("tag", [f'"{DIGEST}"', f'W/"{DIGEST}"', f'"other", "{DIGEST}"', "*"])
async def test_who_holds_a_model_gets_304(controller: InProcess, tag: str) -> None:
    """`If-None-Match` that names it, also weakly or in a list: no body, but the validator; before any Range."""
    http = await held(controller)
    for more in ({}, {"Range": "bytes=0-1"}):
        answer = await http.get(PATH, headers={"If-None-Match": tag, **more})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", f'"{DIGEST}"')
    assert (await http.head(PATH, headers={"If-None-Match": tag})).status_code == 304


async def test_another_tag_gets_the_model(controller: InProcess) -> None:
    """What the caller holds is something else."""
    http = await held(controller)
    assert (await http.get(PATH, headers={"If-None-Match": '"other"'})).content == BODY


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("bytes=0-9", 0, 9),
        ("bytes=10-10", 10, 10),
        ("bytes=100-", 100, SIZE - 1),
        ("bytes=100-999999", 100, SIZE - 1),
        ("bytes=-7", SIZE - 7, SIZE - 1),
        ("bytes=-999999", 0, SIZE - 1),
        ("Bytes=0-0", 0, 0),
    ],
)
async def test_a_part_is_served(controller: InProcess, asked: str, first: int, last: int) -> None:
    """206 with exactly the bytes that were asked for, and where they lie."""
    http = await held(controller)
    answer = await http.get(PATH, headers={"Range": asked})
    assert (answer.status_code, answer.content) == (206, BODY[first : last + 1])
    assert answer.headers["content-range"] == f"bytes {first}-{last}/{SIZE}"
    assert answer.headers["content-length"] == str(last + 1 - first)
    assert answer.headers["etag"] == f'"{DIGEST}"'


@pytest.mark.parametrize("asked", [f"bytes={SIZE}-", f"bytes={SIZE}-{SIZE + 5}", "bytes=-0"])
async def test_a_part_outside_the_document_is_416(controller: InProcess, asked: str) -> None:
    """416 that tells the size, in the header and in the problem."""
    http = await held(controller)
    answer = await http.get(PATH, headers={"Range": asked})
    assert problem(answer, 416, "range-not-satisfiable")["limit"] == SIZE
    assert answer.headers["content-range"] == f"bytes */{SIZE}"


@pytest.mark.parametrize(
    "asked",
    ["bytes=9-0", "bytes=0-1,5-6", "rows=0-9", "bytes=-", "bytes=a-b", "0-9", "bytes=0-²", "bytes=" + "9" * 5000 + "-"],
)
async def test_what_is_no_single_range_is_ignored(controller: InProcess, asked: str) -> None:
    """The whole document, as RFC 9110 allows."""
    http = await held(controller)
    answer = await http.get(PATH, headers={b"Range": asked.encode("latin-1")})
    assert (answer.status_code, answer.content) == (200, BODY)


async def test_if_range_resumes_only_the_same_document(controller: InProcess) -> None:
    """206 when the tag still names it, else all of it; a weak tag is none."""
    http = await held(controller)
    for tag, status in ((f'"{DIGEST}"', 206), ('"other"', 200), (f'W/"{DIGEST}"', 200)):
        answer = await http.get(PATH, headers={"Range": "bytes=50-", "If-Range": tag})
        assert (answer.status_code, answer.content) == (status, BODY[50:] if status == 206 else BODY)


async def test_a_download_that_was_cut_is_resumed(controller: InProcess) -> None:
    """The first bytes and the rest, asked for by tag, are the document."""
    http = await held(controller)
    start = (await http.get(PATH, headers={"Range": "bytes=0-49"})).content
    rest = await http.get(PATH, headers={"Range": f"bytes={len(start)}-", "If-Range": f'"{DIGEST}"'})
    assert digest_of(start + rest.content) == DIGEST


async def test_a_learner_gets_the_models_that_its_open_tasks_name(controller: InProcess) -> None:
    """403 for any other, also one that exists; after its result is in, 403 for that one too."""
    http = await held(controller)
    anna, ben = await begin(http, "anna", "ben")
    named = (await anna.task())["model"]["digest"]
    assert (await anna.call("GET", f"/v1/models/{named}")).status_code == 200
    for other in (DIGEST, digest_of(b"")):
        problem(await anna.call("GET", f"/v1/models/{other}"), 403, "forbidden")
    await anna.work()
    problem(await anna.call("GET", f"/v1/models/{named}"), 403, "forbidden")
    assert (await ben.call("GET", f"/v1/models/{named}")).status_code == 200
    newcomer = await join(http, "cleo")
    problem(await newcomer.call("GET", f"/v1/models/{named}"), 403, "forbidden")


async def test_an_unknown_model_is_404(controller: InProcess) -> None:
    """A digest that is not held, and a path that is no digest."""
    problem(await controller.http.get(PATH), 404, "unknown-model")
    problem(await controller.http.get("/v1/models/newest"), 404, "not-found")


async def test_downloads_of_a_round_are_counted(controller: InProcess) -> None:
    """What members are sent, parts too; not what the operator is."""
    anna, _ = await begin(controller.http, "anna", "ben")
    reference = (await anna.task())["model"]
    path = f"/v1/models/{reference['digest']}"
    await controller.http.get(path)
    await anna.call("GET", path, headers={"Range": "bytes=0-9"})
    await anna.call("HEAD", path)
    await anna.call("GET", path)
    (one,) = (await controller.http.get("/v1/runs/current/rounds")).json()
    assert one["bytes"]["down"] == reference["size"] + 10
