"""The only way in for weights: a document is judged against the round's model while its bytes are walked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..errors import MalformedUpdate
from . import wire
from .checks import Spec
from .layout import Layout
from .tensors import Document, Parsed


@dataclass(frozen=True)
class Expected:
    """What an update must be: laid out as the round's model, or another document of its tensors.

    Without a layout it is a first model, of whatever tensors. `extra`: what the run's algorithm exchanges beside them,
    by name. `coded`: tensors may travel in another form than their own bytes.
    """

    layout: Layout | None = None
    extra: Mapping[str, Spec] = field(default_factory=dict)
    coded: bool = False


def admit(body: memoryview, expected: Expected) -> Parsed:
    """The document in `body`, sharing its memory, once it is as expected; its numbers are not looked at.

    Raises MalformedUpdate or ShapeMismatch for the first thing that is not, and reads nothing beyond it: what a refusal
    takes of time and memory is bounded by what the model has, not by what was sent (the first model: by the limits of
    `wire`).
    """
    if alike := admit_alike(body, expected, len(body)):
        return alike
    spec = expected.layout.spec if expected.layout else None
    document = wire.parse(body, spec=spec, extra=expected.extra, coded=expected.coded)
    if not document.tensors:
        raise MalformedUpdate("a model needs at least one tensor")
    return document


def admit_alike(body: memoryview, expected: Expected, most: int) -> Document | None:
    """The same in a time that grows with the number of tensors and not with their bytes: of a document that is laid out
    as the round's model, and has at most so many bytes beyond its tensors. None for any other."""
    layout = expected.layout
    if layout is None or len(body) - layout.size > most or not layout.fits(body):
        return None
    return layout.take(body, expected.extra)
