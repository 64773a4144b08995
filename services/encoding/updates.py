"""Updates in other forms than their own bytes: what a learner sends, and what the controller makes of it.

What is coded is the difference to the model that the learner was given. The controller adds it to its own model, of
which that one may have been a coarser copy: so what is finer than the copy is not lost from round to round.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..weights import PLAIN, Array, Buffer, Coded, Document, Parsed, Tensor, allocate, wire
from .base import Values, scratch, spans
from .codecs import CODECS, check, codec_of, coded, restore, worth_coding
from .models import array_of


class Sender:
    """The updates of one learner in one run.

    Where the codec leaves things out, they are owed: kept here, a number for each of the model's, and part of the next
    update. All of an update is owed until the controller has taken it, so one that is refused or late loses nothing.
    """

    def __init__(self, encoding: str, topk_ratio: float | None = None) -> None:
        self._encoding = encoding
        self._codec = codec_of(encoding, topk_ratio)
        self._owed: dict[str, Array] = {}  # flat, by the tensor's name
        self._sent: list[Coded] = []
        self._taken = False

    def code(self, trained: Sequence[Tensor], given: Sequence[Tensor | Coded]) -> list[Tensor | Coded]:
        """The update that takes the tensors of the model as it was given to what was trained."""
        self._subtract_taken()
        known = {old.name: old for old in given}
        update = [self._tensor(new, known.get(new.name)) for new in trained]
        self._sent = [one for one in update if isinstance(one, Coded)] if self._codec.feedback else []
        return update

    def taken(self) -> None:
        """The controller has taken the last update."""
        self._taken = True

    def _tensor(self, new: Tensor, old: Tensor | Coded | None) -> Tensor | Coded:
        if old is None or (new.dtype, new.shape) != (old.dtype, old.shape) or not worth_coding(new):
            return new
        difference = Values(new.array, array_of(old))
        values = self._with_owed(new.name, difference) if self._codec.feedback else difference
        if self._encoding != PLAIN and (payload := self._codec.encode(values)):
            return coded(new, self._encoding, payload, delta=True)
        if isinstance(old, Coded) and (payload := CODECS[PLAIN].encode(difference)):
            return coded(new, PLAIN, payload, delta=True)  # whole, it would bring back what `old` had lost
        self._owed.pop(new.name, None)  # it is not finite
        return new

    def _with_owed(self, name: str, difference: Values) -> Values:
        if name not in self._owed:
            self._owed[name] = np.zeros(difference.size, difference.dtype)
        owed = self._owed[name]
        for (start, stop), block in zip(spans(owed.size), difference, strict=True):
            owed[start:stop] += block
        return Values(owed)

    def _subtract_taken(self) -> None:
        """What was taken is no longer owed."""
        for one in self._sent if self._taken else ():
            owed = self._owed[one.name]
            row = scratch(owed.size, owed.dtype)
            for start, stop in spans(owed.size):
                self._codec.decode(one, start, stop, row[: stop - start])
                owed[start:stop] -= row[: stop - start]
        self._sent, self._taken = [], False


def decode_update(sent: Parsed, body: Buffer, takes: Sequence[str], base: Sequence[Array]) -> tuple[Document, Buffer]:
    """An update that was admitted from `body` as plain tensors, and the document of them: `body` when none was coded.

    `takes` are the encodings that its sender may use; `base` are the arrays of the model that a delta is added to.
    Raises InvalidUpdate.
    """
    if isinstance(sent, Document):
        return sent, body
    forms = [tensor for tensor in sent.tensors if isinstance(tensor, Coded)]
    for one in forms:
        check(one, takes)
    return _made_plain(sent, base) if forms else (wire.plain(sent), body)


def _made_plain(sent: Parsed, base: Sequence[Array]) -> tuple[Document, memoryview]:
    """The update as plain tensors, over the one buffer that holds their document."""
    blank = [Tensor(t.name, np.empty(t.shape, t.dtype), t.trainable) for t in sent.tensors]  # never touched
    rest = (sent.metrics, sent.metadata, sent.extra)
    body = allocate(wire.length(wire.encode(blank, *rest)))
    arrays = wire.lay_out(blank, body, *rest)
    beside = [tensor for group in sent.extra.values() for tensor in group]
    models = [*base, *(tensor.array for tensor in beside)]
    for tensor, model, array in zip((*sent.tensors, *beside), models, arrays, strict=True):
        if isinstance(tensor, Coded):
            restore(tensor, model, array)
        else:
            np.copyto(array, tensor.array)
    tensors = tuple(tensor._replace(array=array) for tensor, array in zip(blank, arrays, strict=False))
    return Document(tensors, *rest), body
