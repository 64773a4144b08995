"""Weights documents: tensors and their bytes, the checks that they pass, and large models worked through in blocks."""

from __future__ import annotations

from .admission import Expected, admit, admit_alike
from .blocks import (
    BLOCK,
    Block,
    blocks,
    copy,
    each,
    empty_like,
    fit_dtype,
    gather,
    gather_rows,
    holds,
    in_threads,
    scatter,
)
from .buffers import allocate, drop_idle, pieces
from .checks import Spec, check_distance, check_finite, check_metadata
from .layout import Layout, layout_of
from .tensors import DTYPES, PLAIN, Array, Buffer, Coded, Document, Parsed, Tensor, name_tensors, tensors_of
from .wire import MAX_DIMENSIONS, MAX_TENSORS, MEDIA_TYPE, digest

__all__ = [
    "BLOCK",
    "DTYPES",
    "MAX_DIMENSIONS",
    "MAX_TENSORS",
    "MEDIA_TYPE",
    "PLAIN",
    "Array",
    "Block",
    "Buffer",
    "Coded",
    "Document",
    "Expected",
    "Layout",
    "Parsed",
    "Spec",
    "Tensor",
    "admit",
    "admit_alike",
    "allocate",
    "blocks",
    "check_distance",
    "check_finite",
    "check_metadata",
    "copy",
    "digest",
    "drop_idle",
    "each",
    "empty_like",
    "fit_dtype",
    "gather",
    "gather_rows",
    "holds",
    "in_threads",
    "layout_of",
    "name_tensors",
    "pieces",
    "scatter",
    "tensors_of",
]
