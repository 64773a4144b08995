"""The same upload many times at once counts once; another body for the same task, and one that is late, are refused."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from controller_api.runtime import intake
from tests.conftest import Process, Served, serve, until
from tests.controller_api.driving import MSGPACK, Member, arrays_of, digest_of, document, join, model, problem
from tests.controller_api.transport.test_protocol import Raw, put, serving
from tests.faults.figures import record

PART = "application/partial-upload"
AT_ONCE = 50
FIRST = 2000  # bytes of the first half
SIZES = [pytest.param(1000, id="4-KB"), pytest.param(500_000, id="2-MB")]  # float32 parameters


def update(value: float, size: int) -> bytes:
    """An update of one tensor full of `value`, of one row."""
    return document(np.full(size, value, "<f4"), examples=1)


@asynccontextmanager
async def http_to(served: Served) -> AsyncIterator[httpx.AsyncClient]:
    """As many connections as there are requests."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=served.url, limits=limits, timeout=60, trust_env=False) as http:
        yield http


async def training(http: httpx.AsyncClient, size: int, **config: Any) -> tuple[Member, Member]:
    """Two learners in a run of one round over a model of that size."""
    first = model(np.zeros(size, "<f4"))
    answer = await http.put(f"/v1/models/{digest_of(first)}", content=first, headers={"Content-Type": MSGPACK})
    assert answer.status_code == 201, answer.text
    anna, bert = await join(http, "anna"), await join(http, "bert")
    given = {"termination": {"federation_rounds": 1}, "evaluation": {"every": 0}, "initial_model": digest_of(first)}
    answer = await http.post("/v1/runs", json={"min_learners": 2, **given, **config})
    assert answer.status_code == 201, answer.text
    return anna, bert


async def put_together(member: Member, task: dict[str, Any], body: bytes, together: asyncio.Barrier) -> httpx.Response:
    """Send a result whose second half waits until the first halves of all are on their way."""

    async def halves() -> AsyncIterator[bytes]:
        yield body[:FIRST]
        await together.wait()
        yield body[FIRST:]

    headers = {"Content-Type": MSGPACK, "Content-Length": str(len(body))}
    return await member.call("PUT", f"/v1/tasks/{task['id']}/result", content=halves(), headers=headers)


async def ends_with(http: httpx.AsyncClient, mean: float) -> None:
    """The run ends by itself, with that model."""

    async def over() -> bool:
        return bool((await http.get("/v1/runs/latest")).json()["state"] == "completed")

    await until(over)
    values = arrays_of((await http.get("/v1/runs/latest/model")).content)[0]
    assert set(values) == {mean}


@pytest.mark.parametrize("size", SIZES)
async def test_the_same_upload_fifty_times_at_once_counts_once(served: Served, size: int) -> None:
    """One 201, the others 200, all with one receipt; the mean has it once."""
    async with http_to(served) as http:
        anna, bert = await training(http, size)
        task, body, began = await anna.task(), update(1.0, size), time.monotonic()
        together = asyncio.Barrier(AT_ONCE)
        answers = await asyncio.gather(*(put_together(anna, task, body, together) for _ in range(AT_ONCE)))
        longest = time.monotonic() - began
        assert sorted(one.status_code for one in answers) == [200] * (AT_ONCE - 1) + [201]
        receipts = [one.json() for one in answers]
        assert all(one == receipts[0] for one in receipts)
        assert receipts[0]["size"] == len(body)
        assert (await bert.put(await bert.task(), update(3.0, size))).status_code == 201
        await ends_with(http, 2.0)
    record("the same upload 50 times at once", AT_ONCE, AT_ONCE, 0, 0, longest)


@pytest.mark.parametrize("size", SIZES)
async def test_of_two_bodies_for_one_task_one_counts(served: Served, size: int) -> None:
    """Each of two bodies 25 times at once: the first that comes counts, the other is 409 `different-body`."""
    async with http_to(served) as http:
        anna, bert = await training(http, size)
        task, bodies = await anna.task(), (update(1.0, size), update(5.0, size))
        together = asyncio.Barrier(AT_ONCE)
        puts = [put_together(anna, task, bodies[number % 2], together) for number in range(AT_ONCE)]
        answers = await asyncio.gather(*puts)
        found = Counter(one.status_code for one in answers)
        assert found == {201: 1, 200: AT_ONCE // 2 - 1, 409: AT_ONCE // 2}
        taken = [one.status_code < 300 for one in answers]
        assert taken == [number % 2 == taken.index(True) for number in range(AT_ONCE)]
        for one in answers:
            if one.status_code == 409:
                problem(one, 409, "different-body")
        assert (await bert.put(await bert.task(), update(3.0, size))).status_code == 201
        await ends_with(http, (3.0 + (1.0, 5.0)[taken.index(True)]) / 2)
    record("two bodies for one task, 25 times each", AT_ONCE, AT_ONCE, 0, 0)


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
async def test_an_upload_for_a_closed_round_is_refused_however_often_it_comes(served: Served, size: int) -> None:
    """409 `round-closed` with the current round, 50 times at once; the model is without it."""
    async with http_to(served) as http:
        schedule = {"round_deadline_s": 10, "min_updates": 1, "lease_s": 300}  # 100 MB are refused in one round
        anna, bert = await training(http, size, schedule=schedule, termination={"federation_rounds": 2})
        late = await anna.task()
        assert (await bert.put(await bert.task(), update(3.0, size))).status_code == 201
        follows = await bert.task(wait=30)
        assert follows["round"] == 2
        body = update(1.0, size)
        answers = await asyncio.gather(*(anna.put(late, body) for _ in range(AT_ONCE)))
        for one in answers:
            assert problem(one, 409, "round-closed")["current_round"] == 2
        assert (await bert.put(follows, update(7.0, size))).status_code == 201
        await ends_with(http, 7.0)
        rounds = (await http.get("/v1/runs/latest/rounds")).json()
        assert [one["completed"] for one in rounds] == [["bert"], ["bert"]]
        assert all(one["closed_by"].startswith("deadline, with 1 update") for one in rounds)
    record("an upload for a closed round, 50 times at once", AT_ONCE, AT_ONCE, 0, 0)


async def begun(served: Served, request: str, media: str, body: bytes, *lines: str) -> asyncio.StreamWriter:
    """A connection on which a request was begun: what is given of its body, of the length that the lines say."""
    _, writer = await asyncio.open_connection("127.0.0.1", served.port)
    head = [f"{request} HTTP/1.1", "Host: localhost", f"Content-Type: {media}", *lines]
    writer.write("\r\n".join([*head, "", ""]).encode() + body)
    await writer.drain()
    return writer


async def offset(member: Member, task: dict[str, Any]) -> int:
    """How much of a result is here."""
    return int((await member.call("HEAD", f"/v1/tasks/{task['id']}/result")).headers["upload-offset"])


async def test_two_resumptions_at_one_offset_never_mix(start: Callable[..., Process], tmp_path: Path) -> None:
    """Both wait for a slot and then go on at the same byte: what counts is the update as it was sent."""
    served = serve(start, tmp_path, METIS_UPLOAD_SLOTS="2")
    async with http_to(served) as http:
        anna, bert = await training(http, 500_000)
        task, others, values = await anna.task(), await bert.task(), np.arange(500_000, dtype="<f4")
        body, path = document(values, examples=1), f"/v1/tasks/{task['id']}/result"
        length = f"Content-Length: {len(body)}"
        (await begun(served, f"PUT {path}", MSGPACK, body[:800_000], length)).close()

        async def cut() -> bool:
            return await offset(anna, task) > 0

        await until(cut)
        have = await offset(anna, task)
        some = [f"/v1/models/sha256-{digit * 64}" for digit in "01"]
        blocking = [await begun(served, f"PUT {one}", MSGPACK, body[:400_000], length) for one in some]
        at = (f"Upload-Offset: {have}", "Upload-Complete: ?1", f"Content-Length: {len(body) - have}")
        await asyncio.sleep(0.2)  # until they have the slots
        first = await begun(served, f"PATCH {path}", PART, body[have : have + 300_000], *at)
        second = await begun(served, f"PATCH {path}", PART, body[have:], *at)
        await asyncio.sleep(0.2)
        for one in blocking:
            one.close()
        await asyncio.sleep(0.3)
        for one in (first, second):
            with suppress(ConnectionError):
                one.close()
        here = await offset(anna, task)
        lines = {"Content-Type": PART, "Upload-Offset": f"{here}", "Upload-Complete": "?1"}
        rest = await anna.call("PATCH", path, content=body[here:], headers=lines)
        assert rest.status_code in (200, 201), rest.text
        assert (await bert.put(others, document(values + 2, examples=1))).status_code == 201

        async def over() -> bool:
            return bool((await http.get("/v1/runs/latest")).json()["state"] == "completed")

        await until(over)
        mean = arrays_of((await http.get("/v1/runs/latest/model")).content)[0]
        assert mean == (values + 1).tolist()


async def test_whoever_asks_for_a_result_that_is_examined_waits_for_what_comes_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """HEAD while a whole upload is checked, and clipped in its place: nobody else gets the bytes; the reply is lost."""
    clip = {"name": "ClipNorm", "norm": 1.0}
    examining, examine = threading.Event(), intake.check_update

    def slowly(*given: Any) -> Any:
        examining.set()
        time.sleep(0.3)
        return examine(*given)

    monkeypatch.setattr(intake, "check_update", slowly)
    async with serving(True) as server, httpx.AsyncClient(base_url=server.url) as http:
        anna, bert = await training(http, 500_000, transforms=[clip])
        task, body = await anna.task(), update(1.0, 500_000)
        raw = await Raw.open(server)
        await raw.send(b"".join(put(task["id"], body)))
        assert await asyncio.to_thread(examining.wait, 10)
        told = await anna.call("HEAD", f"/v1/tasks/{task['id']}/result")
        assert (told.headers["upload-complete"], told.headers["upload-offset"]) == ("?1", str(len(body)))
        lines = {"Content-Type": PART, "Upload-Offset": str(len(body)), "Upload-Complete": "?1"}
        again = await anna.call("PATCH", f"/v1/tasks/{task['id']}/result", headers=lines)
        assert (again.status_code, again.json()["size"]) == (200, len(body))
        assert (await raw.answer())[0] == 201
        assert (await bert.put(await bert.task(), update(0.0, 500_000))).status_code == 201
