"""Models in other forms than their own bytes: made by the controller, restored by learners."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..weights import Array, Coded, Document, Parsed, Tensor
from .base import Values, refuse
from .codecs import CODECS, check, coded, restore, worth_coding

OF_MODELS = ("bf16", "int8")  # forms that stand by themselves


def encode_model(tensors: Sequence[Tensor], encoding: str) -> list[Tensor | Coded]:
    """The tensors in this form, those as they are that it does not suit."""
    return [_coded(tensor, encoding) for tensor in tensors]


def _coded(tensor: Tensor, encoding: str) -> Tensor | Coded:
    payload = CODECS[encoding].encode(Values(tensor.array)) if worth_coding(tensor) else None
    return tensor if payload is None else coded(tensor, encoding, payload)


def decode_model(document: Parsed) -> Document:
    """The model with its coded tensors restored, in arrays of their own. Raises MalformedUpdate."""
    tensors = tuple(Tensor(t.name, array_of(t), t.trainable) for t in document.tensors)
    return Document(tensors, document.metrics, document.metadata, document.extra)


def own(document: Parsed) -> Document:
    """The same, all of its arrays to be written to, the document left as it was."""
    model = decode_model(document)
    kept = [isinstance(t, Coded) for t in document.tensors]
    tensors = [t if new else t._replace(array=t.array.copy()) for t, new in zip(model.tensors, kept, strict=True)]
    return Document(tuple(tensors), model.metrics, model.metadata, model.extra)


def array_of(one: Tensor | Coded) -> Array:
    """The numbers of a model's tensor."""
    if isinstance(one, Tensor):
        return one.array
    check(one, OF_MODELS)
    if one.delta:
        refuse(one, "a model has nothing to differ from")
    array = np.empty(one.shape, one.dtype)
    restore(one, None, array)
    return array
