"""Learners: enrolling, returning, leaving."""

from __future__ import annotations

import pytest

from controller_api.http.routes import tasks as hot
from services.federation import roster
from tests.conftest import InProcess, in_process, until
from tests.controller_api.driving import (
    ENROLL,
    OPERATOR,
    TOKENS,
    VIEWER,
    Member,
    bearer,
    begin,
    join,
    problem,
    settings,
)


async def test_enrolling_gives_an_id_and_a_token_that_is_shown_once(controller: InProcess) -> None:
    """201, a Location that leads to the learner, and its token nowhere but in this answer."""
    http = controller.http
    answer = await http.post("/v1/learners", json={"name": "anna", "num_training_examples": 600})
    made = answer.json()
    assert answer.status_code == 201
    assert (made["name"], made["state"], made["num_training_examples"]) == ("anna", "active", 600)
    assert made["kinds"] == ["init", "train", "evaluate"]
    assert len(made["token"]) >= 43  # 256 bits in base64
    shown = await http.get(answer.url.join(answer.headers["location"]))
    assert shown.status_code == 200
    assert shown.json()["id"] == made["id"]
    pages = [await http.get(path) for path in ("/v1/learners", f"/v1/learners/{made['id']}", "/v1/federation", "/")]
    assert not [page.url for page in pages if made["token"] in page.text]
    assert shown.json()["token"] is None


async def test_a_name_is_made_up_when_none_is_given(controller: InProcess) -> None:
    """Learners without a name get different ones."""
    made = [(await controller.http.post("/v1/learners", json={})).json() for _ in range(3)]
    assert len({one["name"] for one in made}) == 3
    assert all(one["name"] for one in made)


async def test_a_name_in_use_is_refused(controller: InProcess) -> None:
    """409 `name-taken` while its holder lives, and the holder stays."""
    anna = await join(controller.http, "anna")
    refused = problem(await controller.http.post("/v1/learners", json={"name": "anna"}), 409, "name-taken")
    assert "anna" in refused["detail"]
    assert [one["id"] for one in (await controller.http.get("/v1/learners")).json()] == [anna.id]


async def test_under_its_own_token_a_learner_reports_back(controller: InProcess) -> None:
    """200 with the same id and name; what it says of itself is renewed; no second token is made."""
    anna = await join(controller.http, "anna", num_training_examples=5)
    answer = await anna.call("POST", "/v1/learners", json={"name": "anna", "num_training_examples": 7})
    assert answer.status_code == 200
    assert (answer.json()["id"], answer.json()["name"]) == (anna.id, "anna")
    assert answer.json()["num_training_examples"] == 7
    assert "token" not in answer.json()
    assert (await anna.call("GET", anna.path)).status_code == 200


async def test_a_returning_learner_keeps_its_open_task(controller: InProcess) -> None:
    """A restarted agent is offered the task that it had, under the same id."""
    (anna,) = await begin(controller.http, "anna")
    before = await anna.task()
    assert (await anna.call("POST", "/v1/learners", json={"name": "anna"})).status_code == 200
    assert (await anna.task())["id"] == before["id"]


async def test_the_name_of_a_lost_learner_goes_to_the_newcomer(controller: InProcess) -> None:
    """Once the lease has lapsed the same name is a new id that replaces the old one, whose token is void."""
    http = controller.http
    (anna,) = await begin(http, "anna", schedule={"lease_s": 0.1})

    async def lost() -> bool:
        return bool((await http.get(anna.path)).json()["state"] == "lost")

    await until(lost, 10)
    again = await join(http, "anna")
    assert again.id != anna.id
    assert [one["id"] for one in (await http.get("/v1/learners")).json()] == [again.id]
    problem(await anna.call("GET", f"{anna.path}/task"), 401, "unauthenticated")


async def test_a_learner_that_answers_polls_is_not_lost(controller: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """A poll that waits longer than the lease keeps its learner active."""
    monkeypatch.setattr(hot, "MAX_WAIT_S", 0.5)
    anna, ben = await begin(controller.http, "anna", "ben", schedule={"lease_s": 0.1, "min_updates": 2})
    await anna.work()
    assert (await anna.call("GET", f"{anna.path}/task", params={"wait": 60})).status_code == 204
    states = {one["name"]: one["state"] for one in (await controller.http.get("/v1/learners")).json()}
    assert states == {"anna": "active", "ben": "lost"}
    assert (await ben.task())["kind"] == "train"  # it may return


async def test_learners_are_listed_by_name(controller: InProcess) -> None:
    """GET /learners shows all, GET /learners/{id} one; an unknown id is 404."""
    made = [await join(controller.http, name, labels={"site": name}) for name in ("ben", "anna")]
    listed = (await controller.http.get("/v1/learners")).json()
    assert [one["name"] for one in listed] == ["anna", "ben"]
    one = (await controller.http.get(made[0].path)).json()
    assert (one["labels"], one["task"]) == ({"site": "ben"}, None)
    problem(await controller.http.get("/v1/learners/nobody"), 404, "unknown-learner")


async def test_leaving_is_idempotent_and_ends_the_token(controller: InProcess) -> None:
    """DELETE is 204, again too; after it the learner's own token is unknown."""
    anna = await join(controller.http, "anna")
    assert (await anna.call("DELETE", anna.path)).status_code == 204
    assert (await controller.http.delete(anna.path)).status_code == 204
    assert (await controller.http.get("/v1/learners")).json() == []
    problem(await anna.call("GET", f"{anna.path}/task"), 401, "unauthenticated")


async def test_leaving_in_mid_round_never_stalls_it(controller: InProcess) -> None:
    """The round closes with the updates of those who stay, and says who left."""
    anna, ben, cleo = await begin(controller.http, "anna", "ben", "cleo")
    await anna.work()
    await ben.work()
    await cleo.call("DELETE", cleo.path)
    assert (await anna.task())["kind"] == "evaluate"
    (one,) = (await controller.http.get("/v1/runs/current/rounds")).json()
    assert (one["completed"], list(one["failed"])) == (["anna", "ben"], ["cleo"])


async def test_a_learner_is_asked_only_for_what_it_can_do(controller: InProcess) -> None:
    """`kinds`: one that only evaluates is neither counted as a trainer nor offered a training."""
    http = controller.http
    judge = await join(http, "judge", kinds=["evaluate"])
    await http.post("/v1/runs", json={"min_learners": 1, "termination": {"federation_rounds": 1}})
    assert "nobody" in (await http.get("/v1/runs/current")).json()["waiting_for"]
    anna = await join(http, "anna")
    assert (await anna.work())["kind"] == "init"
    assert (await anna.task())["kind"] == "train"
    assert (await judge.call("GET", f"{judge.path}/task")).status_code == 204


async def test_a_full_federation_says_so(controller: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """429 `busy` with Retry-After, and nobody is enrolled."""
    monkeypatch.setattr(roster, "MAX_LEARNERS", 1)
    await join(controller.http, "anna")
    answer = await controller.http.post("/v1/learners", json={"name": "ben"})
    assert problem(answer, 429, "busy")["limit"] == 1
    assert int(answer.headers["retry-after"]) > 0
    assert len((await controller.http.get("/v1/learners")).json()) == 1


async def test_with_tokens_the_enrolment_token_enrols_and_a_viewer_sees(controller: InProcess) -> None:
    """Enrolment under its token, reading under the viewer's, everything under the operator's."""
    async with in_process(settings(**TOKENS)) as guarded:
        anna = await join(guarded.http, "anna", ENROLL)
        for token in (VIEWER, OPERATOR, anna.token):
            assert (await guarded.http.get(anna.path, headers=bearer(token))).json()["name"] == "anna"
        problem(await guarded.http.get(anna.path, headers=bearer(ENROLL)), 403, "forbidden")
        ben = Member(guarded.http, "x", "ben", VIEWER)
        problem(await ben.call("POST", "/v1/learners", json={"name": "ben"}), 403, "forbidden")
