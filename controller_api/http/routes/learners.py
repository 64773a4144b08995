"""Enrolment, by a plain route (described in operations.py), for a thousand learners may come back at once; and the list
of learners."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from pydantic import ValidationError
from starlette.routing import Route

from services import messages as m
from services.errors import InvalidRequest, UnknownLearner

from ...problems import from_validation
from .request import caller, runtime_of

KEY_CHARACTERS = (16, 200)
router = APIRouter(prefix="/v1/learners", tags=["learners"])


async def join(request: Request) -> Response:
    """POST /v1/learners"""
    runtime, identity = runtime_of(request), caller(request)
    try:
        body = m.JoinRequest.model_validate_json(await request.body() or b"null")
    except ValidationError as error:
        raise from_validation(error) from error
    key = request.headers.get("idempotency-key")
    if key is not None and not KEY_CHARACTERS[0] <= len(key) <= KEY_CHARACTERS[1]:
        raise InvalidRequest("Idempotency-Key has {} to {} characters".format(*KEY_CHARACTERS), got=len(key))
    if body.callback_url is not None:
        await runtime.check_callback(body.callback_url)
    if identity.learner is not None:
        return _without_nulls(await runtime.rejoin(identity.learner, body), 200)
    learner = await runtime.join(body, key)
    where = {"Location": f"learners/{learner.id}"}  # resolved against the request, below any prefix
    return _without_nulls(learner, 201, where)


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


def _without_nulls(learner: m.Learner, status: int, headers: dict[str, str] | None = None) -> Response:
    return Response(learner.model_dump_json(exclude_none=True), status, headers, "application/json")


ROUTES = [Route("/v1/learners", join, methods=["POST"])]
