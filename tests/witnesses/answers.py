"""What a controller answers of its state, without what differs from one start to the next, and how answers compare.

Left out, and nothing else: moments that begin anew with a start (`last_seen`, `last_seen_s`, `expires_in_s`), the
program's `version`, and what is told in words that name seconds or may be said better: `waiting_for`, of which it
counts whether there is something, and `kept`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import httpx

LEFT_OUT = ("last_seen", "last_seen_s", "expires_in_s", "version", "kept")


def stable(value: Any) -> Any:
    """An answer without what differs."""
    if isinstance(value, dict):
        kept = {key: stable(one) for key, one in value.items() if key not in LEFT_OUT}
        return {**kept, "waiting_for": kept["waiting_for"] is not None} if "waiting_for" in kept else kept
    return [stable(one) for one in value] if isinstance(value, list) else value


def state_of(http: httpx.Client) -> dict[str, Any]:
    """What an operator reads, by path."""
    paths = ["/v1/federation", "/v1/learners", "/v1/runs"]
    told = {path: _get(http, path) for path in paths}
    for one in told["/v1/learners"]:
        paths.append(f"/v1/learners/{one['id']}")
    for run in told["/v1/runs"]:
        paths += [f"/v1/runs/{run['id']}{more}" for more in ("", "/rounds", "/results")]
    return {path: stable(told[path] if path in told else _get(http, path)) for path in paths}


def models_of(http: httpx.Client) -> dict[str, Any]:
    """Each run's newest and best model, by path: as it is named, and as it is when it is fetched."""
    found: dict[str, Any] = {}
    for run in _get(http, "/v1/runs"):
        for which in ("latest", "best"):
            path = f"/v1/runs/{run['id']}/model?which={which}"
            answer = http.get(path)
            if answer.status_code == 404:
                found[path] = None
                continue
            answer.raise_for_status()
            digest = f"sha256-{hashlib.sha256(answer.content).hexdigest()}"
            named = answer.headers["etag"].strip('"')
            found[path] = {"etag": named, "digest": digest, "size": len(answer.content)}
            found[path]["type"] = answer.headers["content-type"]
    return found


def held(http: httpx.Client) -> dict[str, int]:
    """Of each model that a round names, the status with which it is answered: 200 while it is kept, then 404."""
    rounds = [one for run in _get(http, "/v1/runs") for one in _get(http, f"/v1/runs/{run['id']}/rounds")]
    digests = {digest for one in rounds for digest in (one["parent"], one["model"]) if digest}
    return {digest: http.get(f"/v1/models/{digest}").status_code for digest in sorted(digests)}


def end_of(http: httpx.Client) -> dict[str, Any]:
    """How the newest run ended: what does not depend on time, nor on ids that are drawn."""
    results = _get(http, "/v1/runs/latest/results")
    kept = ("round", "state", "model", "parent", "selected", "completed", "failed", "bytes")
    scores = ("train_metrics", "evaluation_metrics")
    return {
        "state": results["run"]["state"],
        "ended_by": results["ended_by"],
        "model": results["model"],
        "best_model": results["run"]["best_model"],
        "best_round": results["run"]["best_round"],
        "global_iteration": results["global_iteration"],
        "rounds": [{key: one[key] for key in (*kept, *scores)} for one in results["rounds"]],
        "factors": sorted(
            [one["round"], one["learner"], one["factor"]] for one in results["tasks"] if one["factor"] is not None
        ),
        "size": len(http.get("/v1/runs/latest/model").raise_for_status().content),
    }


def facts(verified: dict[str, Any]) -> list[dict[str, Any]]:
    """What `metis verify` found of each round; its sentences are for people."""
    kept = ("round", "verdict", "updates", "parent", "model")
    return [{key: one[key] for key in kept} for one in verified["rounds"]]


def differences(expected: Any, got: Any, where: str = "") -> Iterator[str]:
    """Where an answer is not what it was. Keys that were not there before are none: readers ignore what they do not
    know."""
    if isinstance(expected, dict) and isinstance(got, dict):
        for key, value in expected.items():
            if key in got:
                yield from differences(value, got[key], f"{where}/{key}")
            else:
                yield f"{where}/{key} is gone"
    elif isinstance(expected, list) and isinstance(got, list) and len(expected) == len(got):
        for index, (one, other) in enumerate(zip(expected, got, strict=True)):
            yield from differences(one, other, f"{where}/{index}")
    elif expected != got or type(expected) is not type(got):
        yield f"{where} was {expected!r}, is {got!r}"


def _get(http: httpx.Client, path: str) -> Any:
    return http.get(path).raise_for_status().json()
