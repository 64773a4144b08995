"""Taking the result of a task: read the body, check it against the round's model, store it, count it once.

An update in another form is made plain before it is checked: checks, store and rules know plain tensors only. Then the
run's transforms change it, in place, in the buffer that it came in; what they make of it is checked for what is finite.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from pydantic import ValidationError
from starlette.requests import Request

from services import messages as m
from services.encoding import decode_update
from services.errors import DigestMismatch, InvalidRequest, InvalidUpdate, UnsupportedMediaType
from services.federation import Assignment, ModelInfo, Outcome, Plan, fingerprint_of
from services.process import reach
from services.transforms import transform
from services.weights import (
    PLAIN,
    Buffer,
    Document,
    Expected,
    Layout,
    Parsed,
    Tensor,
    admit,
    admit_alike,
    allocate,
    check_distance,
    check_finite,
    check_metadata,
    wire,
)

from ..headers import media_type
from ..problems import from_validation
from ..transport import INLINE, collect, incoming_of, receive
from .runtime import Runtime

T = TypeVar("T")
Change = Callable[[Sequence[Tensor]], tuple[m.Transformed, ...]]  # changes an update's tensors in place
FIRST_MODEL = Expected()
WALKED_INLINE = 1 << 13  # bytes walked value by value on the event loop: of the smallest tensors 200, below 10 ms
SPARSE = 4  # a value and its index have at most so many times the bytes of the model's value
MOST = ", the most that a result of this task can have"
OPERATOR = "operator"  # in whose name models have a slot
READ_INLINE = 1 << 22  # bytes that are only read once on the event loop, in less than a millisecond


async def take_result(runtime: Runtime, request: Request, task: Assignment) -> tuple[m.Receipt, bool]:
    """The receipt for the result in the request's body, and whether it was taken now."""
    reach("upload-begun")
    async with body_of(runtime, request, task) as body:
        return await take_body(runtime, task, body)


async def take_body(runtime: Runtime, task: Assignment, body: memoryview) -> tuple[m.Receipt, bool]:
    """The receipt for a whole result."""
    reach("upload-whole")
    if task.kind == "evaluate":
        return await take_evaluation(runtime, task, body)
    try:
        return await take_weights(runtime, task, body)
    except InvalidUpdate as error:
        await runtime.refuse_update(task.id, error.detail)
        raise


async def take_weights(runtime: Runtime, task: Assignment, body: memoryview) -> tuple[m.Receipt, bool]:
    """The receipt for an update or initial model."""
    size = len(body)
    if task.state == "accepted":  # a replay needs no second look
        return await runtime.accept(task, Outcome(await examine(size, lambda: fingerprint_of(body)), size))
    if task.kind == "init":
        sent = await walk(runtime, body, FIRST_MODEL)
        fingerprint, document = await examine(size, lambda: (fingerprint_of(body), check_first(sent)))
        outcome = Outcome(fingerprint, size, document.metrics, document.metadata)
        return await runtime.accept_initial(task, document.tensors, outcome)
    assert task.model is not None
    _, layout = runtime.model(task.model.digest)
    plan = runtime.federation.runs[task.run_id].plan
    change = await transforming(runtime, task, layout) if plan.transforms else None
    extras = {name: runtime.model(info.digest)[1].spec for name, info in task.inputs.items()}
    expected = Expected(layout, extras, task.may_code)
    if alike := admit_alike(body, expected, WALKED_INLINE):
        inline = INLINE if change else READ_INLINE
        examined = partial(check_update, alike, body, layout, plan, change=change)
        outcome, update, ordinary = await examine(size, examined, inline)
    else:
        sent = await walk(runtime, body, expected)
        model = await runtime.document(task.model.digest) if task.may_code else None
        make_plain = partial(check_update, sent, body, layout, plan, task.up, model, change)
        outcome, update, ordinary = await examine(unfolded(task, size), make_plain)
    await check_near(runtime, task.model, update, ordinary)
    return await runtime.accept_update(task, update, outcome)


async def check_near(runtime: Runtime, model: ModelInfo, update: Buffer, ordinary: bool) -> None:
    """Raise InvalidUpdate for a plain update that is absurdly far from its model. Nearly always it is enough to know
    that the numbers of both are of an `ordinary` size."""
    known, (_, layout) = runtime.models.ordinary, runtime.model(model.digest)
    if model.digest not in known:
        async with runtime.walking:
            if model.digest not in known:  # nobody else has looked meanwhile
                document = await runtime.document(model.digest)
                looked = await examine(len(document), lambda: layout.check_finite(document), READ_INLINE)
                known[model.digest] = looked
    if not (ordinary and known[model.digest]):
        document = await runtime.document(model.digest)
        await examine(len(document), lambda: check_distance(layout.read(update), layout.read(document)))


async def transforming(runtime: Runtime, task: Assignment, layout: Layout) -> Change:
    """What the transforms of the task's run do to its update, with the bounds that belong to its model."""
    assert task.model is not None
    run = runtime.federation.runs[task.run_id]
    transforms, bounds = run.plan.transforms, run.bounds[task.round - 1]
    model = await runtime.document(task.model.digest)
    return lambda update: transform(transforms, bounds, layout.read(model), update)


def unfolded(task: Assignment, size: int) -> int:
    """Bytes of an update of `size` bytes once it is plain, at most."""
    return max(size, task.model.size) if task.model and task.may_code else size


def check_media(task: Assignment, request: Request) -> None:
    """Raise UnsupportedMediaType unless the body claims to be what results of this kind are."""
    media = media_type(request.headers.get("content-type", ""))
    wants_json = task.kind == "evaluate"
    if wants_json != (media == "application/json"):
        expected = "application/json" if wants_json else wire.MEDIA_TYPE
        raise UnsupportedMediaType(f"the result of {task.kind} is sent as {expected}", expected=expected, got=media)


async def take_evaluation(runtime: Runtime, task: Assignment, body: memoryview) -> tuple[m.Receipt, bool]:
    """The receipt for the scores in a JSON body."""
    try:
        result = m.EvaluationResult.model_validate_json(bytes(body))
    except ValidationError as error:
        raise from_validation(error) from error
    json.loads(bytes(body), object_pairs_hook=_each_once)
    outcome = Outcome(fingerprint_of(body), len(body), result.metrics, result.metadata)
    return await runtime.accept(task, outcome)


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of a result; raises InvalidRequest for a key that comes twice: nobody knows which one is meant."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise InvalidRequest(f"the key {key!r} stands twice in one object: send it once", key=key)
        found[key] = value
    return found


async def take_model(runtime: Runtime, request: Request, digest: str) -> None:
    """Hold the model in the request's body, whose digest is in its path."""
    async with body_of(runtime, request) as body:
        got = await examine(len(body), lambda: wire.digest([body]))
        if got != digest:
            raise DigestMismatch("the body's sha256 is not the one in the path", expected=digest, got=got)
        sent = await walk(runtime, body, FIRST_MODEL)
        await examine(len(body), lambda: check_initial(sent))
        await runtime.put_model(digest, body)


@asynccontextmanager
async def body_of(runtime: Runtime, request: Request, task: Assignment | None = None) -> AsyncIterator[memoryview]:
    """The whole body, until it is dealt with; only so many large ones at once, the others wait in their sockets.

    Of a task one result comes at a time. Of a large one that is cut, what came is kept, to be resumed. Raises
    ClientDisconnect, BodyTooSlow, TooLarge.
    """
    incoming = incoming_of(request)
    learner = OPERATOR if task is None else task.learner_id
    size = incoming.size
    if task is not None:
        incoming.narrow(most_bytes(runtime, task), MOST)
    async with nullcontext() if task is None else runtime.uploads.turn(task.id, incoming):
        if size is not None and size <= INLINE:
            body = await _read(request, size)
            grows = task is not None and unfolded(task, size) > INLINE
            async with runtime.slots.slot(learner, incoming) if grows else nullcontext():
                yield body
            return
        async with runtime.slots.slot(learner, incoming):
            if size is None:
                yield await collect(request)
            elif task is None or task.outcome is not None:
                yield await _read(request, size)
            else:
                upload = runtime.uploads.begin(task.id, learner, size)
                await upload.fill(request, size)
                with runtime.uploads.whole(task.id, upload) as body:
                    yield body


def most_bytes(runtime: Runtime, task: Assignment) -> int:
    """Bytes that weights can have as the result of a task: its model's and its inputs', and as many more as a JSON
    body may have, for what is told beside them."""
    limit = runtime.settings.max_model_bytes
    if task.model is None:
        return limit
    encoding = runtime.federation.runs[task.run_id].config.encoding
    share = max(1.0, SPARSE * encoding.topk_ratio) if task.up == "topk" else 1.0
    tensors = math.ceil(task.model.size * share) + sum(info.size for info in task.inputs.values())
    return min(limit, tensors + runtime.settings.max_json_bytes)


async def _read(request: Request, size: int) -> memoryview:
    body = allocate(size)
    await receive(request, body)
    return body


def check_update(
    sent: Parsed,
    body: memoryview,
    layout: Layout,
    plan: Plan,
    up: str = PLAIN,
    model: memoryview | None = None,
    change: Change | None = None,
) -> tuple[Outcome, Buffer, bool]:
    """What an update admitted from `body` tells, its plain document, and whether its numbers are of an ordinary size;
    raises InvalidUpdate for what is wrong.

    With the document of the `model` that it was trained from it may be coded, as `up` or a difference. `change` is made
    to the document, which may be `body`.
    """
    fingerprint = fingerprint_of(body)
    base = [tensor.array for tensor in layout.read(model)] if model is not None else ()
    document, update = decode_update(sent, body, sorted({PLAIN, up}), base)
    changes = change(layout.read(update, writable=True)) if change else ()
    fits = isinstance(sent, Document) or layout.fits(update)  # what was admitted as it is, is laid out as the model
    ordinary = layout.check_finite(update) if fits else check_finite(document.tensors)
    outcome = _outcome(fingerprint, body, document, plan, changes)
    if change or update is not body:
        outcome = replace(outcome, stored=fingerprint_of(update))
    return outcome, update, ordinary


def _outcome(
    fingerprint: str, body: memoryview, document: Parsed, plan: Plan, changes: tuple[m.Transformed, ...]
) -> Outcome:
    factor = plan.scaler.factor(document.metadata)
    plan.check_update(document.metadata, document.metrics)
    check_metadata(document.metadata)
    for group in document.extra.values():
        if not check_finite(group):
            check_distance(group)
    size = len(body)
    return Outcome(fingerprint, size, document.metrics, document.metadata, factor, transforms=changes)


def check_initial(sent: Parsed) -> Document:
    """A model to begin with, once it is found right."""
    document = wire.plain(sent)
    check_metadata(document.metadata)
    check_finite(document.tensors)
    return document


def check_first(sent: Parsed) -> Document:
    """A learner's initial weights: others will train them."""
    document = check_initial(sent)
    check_distance(document.tensors)
    return document


async def walk(runtime: Runtime, body: memoryview, expected: Expected) -> Parsed:
    """`admit`, off the event loop when it may take long, and then one at a time: they take turns with the event loop at
    the interpreter's lock, and the more there are the longer it waits."""
    if len(body) <= WALKED_INLINE:
        return admit(body, expected)
    async with runtime.walking:
        return await asyncio.to_thread(admit, body, expected)


async def examine(size: int, work: Callable[[], T], inline: int = INLINE) -> T:
    """Run `work` over `size` bytes, off the event loop when they are more than `inline` and it takes long."""
    return work() if size <= inline else await asyncio.to_thread(work)
