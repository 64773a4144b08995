"""What today's commands make of a state folder of another version: its answers, and how its run goes on to its end.

The same is done when a witness is made and when it is read, so that the two can be compared.
"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx

from tests.witnesses.answers import end_of, facts, held, models_of, stable, state_of
from tests.witnesses.commands import HERE, agents, controller, verify
from tests.witnesses.folders import dump, module, unpack

LIMIT_S = 40.0  # of agents that go on


def observe(
    witness: dict[str, Any], archive: Path, scratch: Path, redis: str | None = None, commands: Path = HERE
) -> dict[str, Any]:
    """Of a copy of the archive's folder, in `scratch`. `redis` is the URL of a server that holds the keys."""
    folder, learner = unpack(archive, scratch), module(archive.with_name("learner.py"))
    seen: dict[str, Any] = {}
    if redis is None:
        seen["verified"] = _verified(folder, commands)
    place = {"METIS_MODEL_STORE_URL": redis, "METIS_MODEL_STORE_PREFIX": witness["prefix"]} if redis else {}
    members = [learner.Member(**one) for one in witness["members"]]
    with controller(folder, *witness["flags"], commands=commands, given=place) as at:
        if witness["aggregating"]:
            learner.settled(at.http)
            seen["rounds"] = _closed(at.http)
        else:
            seen["answers"], seen["models"] = state_of(at.http), models_of(at.http)
            seen["held"] = held(at.http)
            seen["tasks"] = {one.name: stable(learner.next_task(at.http, one)) for one in members}
        seen["sent again"] = [_sent_again(at.http, learner, members, one) for one in witness["sent"]]
        seen["started again"] = _started_again(at.http, witness["started"])
        if witness["next"]:
            at.http.post("/v1/runs", json=witness["next"]).raise_for_status()
        if witness["agents"]:
            state = _moved(folder.with_name("agents"), at.url)
            with agents(at.url, witness["agents"], state, archive.with_name("learner.py"), commands):
                _over(at.http)
                seen["end"], seen["learners"] = end_of(at.http), _learners(at.http)
        else:
            learner.go_on(at.http, members)
            seen["end"], seen["learners"] = end_of(at.http), _learners(at.http)
        seen["enrolled again"] = [_enrolled_again(at.http, learner, one) for one in members[:1]]
        seen["exit status"] = at.process.end()
    if redis is not None:
        seen["keys at the end"] = len(dump(redis))
    else:
        seen["verified at the end"] = {**_verified(folder, commands), "run": None}  # its id may be a new one
    return seen


def _verified(folder: Path, commands: Path) -> dict[str, Any]:
    status, told = verify(folder, commands=commands)
    return {"exit status": status, "run": told["run"], "rounds": facts(told)}


def _closed(http: httpx.Client) -> list[dict[str, Any]]:
    """The rounds that had closed before: the one in which the controller was killed has other times, and tasks that
    were offered since."""
    rounds = http.get("/v1/runs/latest/rounds").raise_for_status().json()
    return [stable(one) for one in rounds if one["state"] == "closed"]


def _sent_again(http: httpx.Client, learner: ModuleType, members: list[Any], one: dict[str, Any]) -> list[Any]:
    (member,) = [found for found in members if found.name == one["learner"]]
    body = bytes.fromhex(one["body"])
    return list(learner.send(http, member, one["task"], one["media"], body))


def _started_again(http: httpx.Client, started: dict[str, Any]) -> list[Any]:
    """A start that is repeated under its key gives the same run."""
    told = http.post("/v1/runs", json=started["config"], headers={"Idempotency-Key": started["key"]})
    return [told.status_code, told.json().get("id")]


def _enrolled_again(http: httpx.Client, learner: ModuleType, member: Any) -> bool:
    """Whether an enrolment that is repeated under its key gives the same learner; its token is a new one."""
    try:
        same: bool = learner.join(http, member.name, member.number).id == member.id
    except httpx.HTTPStatusError:
        return False
    return same


def _learners(http: httpx.Client) -> list[list[str]]:
    told = http.get("/v1/learners").raise_for_status().json()
    return [[one["name"], one["id"], one["state"]] for one in told]


def _over(http: httpx.Client) -> None:
    until = time.monotonic() + LIMIT_S
    while time.monotonic() < until:
        if http.get("/v1/runs/latest").raise_for_status().json()["state"] in ("completed", "stopped", "failed"):
            return
        time.sleep(0.02)
    raise AssertionError(f"the run is not over: {http.get('/v1/runs/latest').text}")


def _moved(state: Path, url: str) -> Path:
    """An agent's identity is found by the address of its controller, which has another port now."""
    for path in state.glob("learner-*.json"):
        name = path.stem.split("-")[1]
        mark = hashlib.sha256(f"{url}\0{name}".encode()).hexdigest()[:8]
        path.rename(path.with_name(f"learner-{name}-{mark}.json"))
    return state
