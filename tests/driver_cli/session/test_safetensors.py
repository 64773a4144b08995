"""Reading safetensors: what the format gives, and what is said of a file that is none."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driver_cli.session import safetensors
from services.errors import MalformedUpdate
from services.weights.wire import DTYPES

from .safetensors_files import FOREIGN, entry, saved, written


def test_a_file_of_the_formats_own_library_is_read() -> None:
    """Names, dtypes, shapes and values; in the order of the data; what is under `__metadata__` is passed over."""
    assert [(t.name, t.dtype.name, t.array.tolist()) for t in safetensors.read(memoryview(FOREIGN))] == [
        ("steps", "int64", 3),
        ("w", "float32", [[1.0, -2.0]]),
        ("half", "bfloat16", [1.5]),
        ("on", "bool", [True, False]),
    ]


@given(
    dtypes=st.lists(st.sampled_from(sorted(DTYPES)), max_size=6),
    shape=st.lists(st.integers(0, 3), max_size=3),
    seed=st.integers(0, 100),
)
def test_every_dtype_and_shape_comes_back(dtypes: list[str], shape: list[int], seed: int) -> None:
    """Bit by bit, empty and 0-d tensors too."""
    random = np.random.default_rng(seed)
    arrays = {f"t{i}": (random.random(shape) * 2).astype(DTYPES[dtype]) for i, dtype in enumerate(dtypes)}
    found = safetensors.read(memoryview(saved(arrays)))
    assert {t.name for t in found} == set(arrays)
    for tensor in found:
        assert tensor.dtype == arrays[tensor.name].dtype
        assert tensor.shape == arrays[tensor.name].shape
        assert tensor.array.tobytes() == arrays[tensor.name].tobytes()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "header is longer than the file"),
        (FOREIGN[:7], "header is longer than the file"),
        (FOREIGN[:100], "header is longer than the file"),
        (struct.pack("<Q", 2**63) + b"{}", "header is longer than the file"),
        (written(b"[]"), "its header is wrong"),
        (written(b"{"), "its header is wrong"),
        (written(b"\xff\xff"), "its header is wrong"),
        (written(b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}"), "its header is wrong"),
        (written({"a": 3}), "its header is wrong"),
        (written({"a": {"dtype": "F32", "shape": [1]}}), "its header is wrong"),
        (written({"a": entry("F32", [-1], 0, 4)}, bytes(4)), "its header is wrong"),
        (written({"a": entry("F32", [1.5], 0, 4)}, bytes(4)), "its header is wrong"),
        (written({"a": entry("F32", [1], -4, 0)}, bytes(4)), "its header is wrong"),
        (written({"a": entry("F32", [1] * 33, 0, 4)}, bytes(4)), "its header is wrong"),
        (written({"a": entry("F8_E4M3", [4], 0, 4)}, bytes(4)), "of type 'F8_E4M3'; known: .*BF16"),
        (written({"a": entry("F32", [2], 0, 4)}, bytes(4)), r"F32 of shape \[2\] does not have 4 bytes"),
        (written({"a": entry("F32", [2**40, 2**40], 0, 4)}, bytes(4)), "does not have 4 bytes"),
        (written({"a": entry("F32", [1], 4, 8)}, bytes(8)), "not where the one before ends"),
        (written({"a": entry("F32", [2], 0, 8)}, bytes(4)), "not where the one before ends, or beyond"),
        (written({"a": entry("U8", [0], 4, 0)}, bytes(4)), "not where the one before ends"),
        (written({"a": entry("U8", [4], 0, 4), "b": entry("U8", [4], 2, 6)}, bytes(6)), "'b': its data is not where"),
        (written({"a": entry("F32", [1], 0, 4)}, bytes(5)), "1 bytes at the end belong to no tensor"),
        (FOREIGN[:-1], "'on': its data is not where .* or beyond the file's"),
    ],
)
def test_what_is_no_safetensors_file_is_refused(content: bytes, why: str) -> None:
    """Before anything is made of what the header says: cut, overlapping, too large, or of types that cannot travel."""
    with pytest.raises(MalformedUpdate, match=why):
        safetensors.read(memoryview(content))


@given(at=st.integers(0, len(FOREIGN)), inserted=st.binary(max_size=9), removed=st.integers(0, 9) | st.just(1000))
def test_any_bytes_are_read_or_refused(at: int, inserted: bytes, removed: int) -> None:
    """Nothing else is raised, whatever was changed in a file."""
    content = FOREIGN[:at] + inserted + FOREIGN[at + removed :]
    try:
        tensors = safetensors.read(memoryview(content))
    except MalformedUpdate:
        return
    assert sum(tensor.array.nbytes for tensor in tensors) <= len(content)


def test_more_tensors_than_a_document_may_have_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before they are looked at one by one."""
    monkeypatch.setattr(safetensors, "MAX_TENSORS", 3)
    with pytest.raises(MalformedUpdate, match="holds 4 tensors; 3 are the limit"):
        safetensors.read(memoryview(FOREIGN))
