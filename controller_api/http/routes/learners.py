"""Enrolment and the list of learners."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Request, Response

from services import messages as m
from services.errors import UnknownLearner

from .request import caller, runtime_of

router = APIRouter(prefix="/v1/learners", tags=["learners"])


@router.post("", status_code=201, response_model_exclude_none=True)
async def join(
    request: Request,
    response: Response,
    body: m.JoinRequest,
    idempotency_key: Annotated[str | None, Header(min_length=16, max_length=200)] = None,
) -> m.Learner:
    """Enrol (under the enrolment token: 201, with the learner's own `token`, shown once), or report back after a
    restart (under the learner's own token: 200, same id). The same name again is a 409 while its holder is alive;
    after that the newcomer replaces it. With an `Idempotency-Key` that nobody can guess the call may be repeated when
    its answer was lost: the learner is the same, the token a new one."""
    runtime, identity = runtime_of(request), caller(request)
    if body.callback_url is not None:
        await runtime.check_callback(body.callback_url)
    if identity.learner is not None:
        response.status_code = 200
        return await runtime.rejoin(identity.learner, body)
    learner = await runtime.join(body, idempotency_key)
    response.headers["Location"] = f"learners/{learner.id}"  # resolved against the request, below any prefix
    return learner


@router.get("")
async def learners(request: Request) -> list[m.Learner]:
    """Every learner that is in the federation."""
    runtime = runtime_of(request)
    members = sorted(runtime.federation.roster, key=lambda member: member.name)
    return [runtime.federation.learner_message(member, runtime.now) for member in members]


@router.get("/{learner_id}")
async def learner(request: Request, learner_id: str) -> m.Learner:
    """One learner."""
    runtime = runtime_of(request)
    return runtime.federation.learner_message(runtime.federation.roster.get(learner_id), runtime.now)


@router.post("/{learner_id}/readmit")
async def readmit(request: Request, learner_id: str) -> m.Learner:
    """Let a learner back that was put aside (`health: aside`), since its updates were refused in three rounds in a row.
    It gets tasks from the next round on. Of any other learner nothing changes but that earlier refusals are forgotten.
    """
    return await runtime_of(request).readmit(learner_id)


@router.delete("/{learner_id}", status_code=204)
async def leave(request: Request, learner_id: str) -> None:
    """Leave for good: open tasks are void, the round goes on without this learner, its updates are erased. Leaving
    twice is no error."""
    runtime = runtime_of(request)
    try:
        await runtime.leave(learner_id)
    except UnknownLearner:
        await runtime.kept()
