"""Codecs by the name that a user types and a tensor carries; a tensor coded, checked and restored by them."""

from __future__ import annotations

import math
from collections.abc import Collection

import numpy as np

from ..config import nearest
from ..errors import InvalidConfig
from ..weights import PLAIN, Array, Coded, Tensor
from .base import Codec, Payload, is_floating, refuse, scratch, spans, working
from .bf16 import BFloat16
from .int8 import Int8
from .plain import Plain
from .topk import TopK

CODECS: dict[str, Codec] = {PLAIN: Plain(), "bf16": BFloat16(), "int8": Int8(), "topk": TopK()}
SMALL = 1024  # bytes: what is smaller travels as it is


def codec_of(name: str, topk_ratio: float | None) -> Codec:
    """The codec with a run's parameters; raises InvalidConfig for an unknown name."""
    if name not in CODECS:
        raise InvalidConfig(f"encoding: there is no {name!r}{nearest(name, CODECS)}", got=name)
    return TopK(topk_ratio) if name == "topk" and topk_ratio else CODECS[name]


def worth_coding(tensor: Tensor) -> bool:
    """Only large trainable floats: a coarse BatchNorm variance may be zero, and costs little whole."""
    return tensor.trainable and is_floating(tensor.dtype) and tensor.array.nbytes >= SMALL


def coded(tensor: Tensor, encoding: str, payload: Payload, delta: bool = False) -> Coded:
    """What travels in the place of a tensor."""
    indices = None if payload.indices is None else payload.indices.view(np.uint8).data
    data = payload.data.view(np.uint8).data
    name, trainable = tensor.name, tensor.trainable
    return Coded(name, tensor.dtype, tensor.shape, encoding, data, delta, payload.scale, indices, trainable)


def check(one: Coded, takes: Collection[str]) -> None:
    """Raise MalformedUpdate, naming the tensor, for one that cannot be restored or is not taken here."""
    if one.encoding not in takes or one.encoding not in CODECS:
        refuse(one, f"encoding {one.encoding!r} is not taken here; taken: {', '.join(takes) or 'none'}")
    if not is_floating(one.dtype):
        refuse(one, f"{one.dtype.name} travels as it is; only floats are coded")
    if one.scale is not None and one.encoding != "int8":
        refuse(one, f"{one.encoding} has no scale")
    if one.indices is not None and one.encoding != "topk":
        refuse(one, f"{one.encoding} has no indices")
    CODECS[one.encoding].check(one, math.prod(one.shape))


def restore(one: Coded, base: Array | None, target: Array) -> None:
    """Write the numbers of a checked tensor into `target`; a delta's are added to those of `base`. Memory: one block.

    Sums are made in the working dtype. What is too large for the tensor's dtype becomes infinite.
    """
    codec, flat, work = CODECS[one.encoding], target.reshape(-1), working(one.dtype)
    row = None if flat.dtype == work else scratch(flat.size, work)
    held = base.reshape(-1) if base is not None and one.delta else None
    with np.errstate(over="ignore", invalid="ignore"):
        for start, stop in spans(flat.size):
            part = flat[start:stop] if row is None else row[: stop - start]
            codec.decode(one, start, stop, part)
            if held is not None:
                np.add(held[start:stop], part, out=part, dtype=work)
            if row is not None:
                np.copyto(flat[start:stop], part, casting="unsafe")
