"""Models in files: what each format gives, and what is said of a file that is none."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driver_cli import model_files, safetensors
from services import wire
from services.errors import InvalidConfig, MalformedUpdate
from services.wire import DTYPES, Document

# Written by safetensors 0.8.0 of {"w": [[1, -2]], "steps": 3, "half": [1.5] in bfloat16, "on": [True, False]}.
FOREIGN = (
    b'\x08\x01\x00\x00\x00\x00\x00\x00{"__metadata__":{"format":"pt"},"steps":{"dtype":"I64","shape":[],"data_offsets"'
    b':[0,8]},"w":{"dtype":"F32","shape":[1,2],"data_offsets":[8,16]},"half":{"dtype":"BF16","shape":[1],"data_offsets'
    b'":[16,18]},"on":{"dtype":"BOOL","shape":[2],"data_offsets":[18,20]}}    '
    b"\x03\x00\x00\x00\x00\x00\x00\x00\x00\x00\x80?\x00\x00\x00\xc0\xc0?\x01\x00"
)
NAMES = {dtype: code for code, dtype in safetensors.NAMES.items()}


def document(path: Path) -> Document:
    """What is sent of a file."""
    return wire.decode(b"".join(bytes(part) for part in model_files.read(path)))


def written(header: Any, data: bytes = b"", size: int | None = None) -> bytes:
    """A file of that header, which says that it has `size` bytes."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text + data


def entry(dtype: str, shape: list[Any], begin: int, end: int) -> dict[str, Any]:
    """A tensor in a header."""
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def saved(arrays: dict[str, Any]) -> bytes:
    """A file of these arrays, in their order."""
    header, data = {}, b""
    for name, array in arrays.items():
        header[name] = entry(NAMES[array.dtype.name], list(array.shape), len(data), len(data) + array.nbytes)
        data += array.tobytes()
    return written(header, data)


# ---- safetensors
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


# ---- the three formats as one
def test_each_format_gives_the_same_document(tmp_path: Path) -> None:
    """Names are kept, and the order of the file: the digest does not depend on the format."""
    arrays = {"w": np.ones((2, 3), np.float32), "b": np.array(2.0, np.float64), "a": np.arange(3)}
    np.savez(tmp_path / "m.npz", **arrays)
    np.savez_compressed(tmp_path / "small.npz", **arrays)
    (tmp_path / "m.safetensors").write_bytes(saved(arrays))
    parts = wire.encode(wire.name_tensors(list(arrays.values()), list(arrays)))
    (tmp_path / "m.msgpack").write_bytes(b"".join(bytes(part) for part in parts))
    files = ["m.npz", "small.npz", "m.safetensors", "m.msgpack"]
    assert {wire.digest(model_files.read(tmp_path / name)) for name in files} == {wire.digest(parts)}
    assert [tensor.name for tensor in document(tmp_path / "m.npz").tensors] == ["w", "b", "a"]


def test_arrays_in_fortran_order_and_of_other_byte_orders_are_the_same_numbers(tmp_path: Path) -> None:
    """What numpy saved of a transposed or a foreign array arrives in C order, little endian."""
    array = np.arange(6, dtype=">f4").reshape(2, 3)
    np.savez(tmp_path / "m.npz", swapped=array, turned=np.asfortranarray(array.astype("<f4")))
    for tensor in document(tmp_path / "m.npz").tensors:
        assert (tensor.dtype, tensor.array.tolist()) == (np.dtype("<f4"), [[0, 1, 2], [3, 4, 5]])


def test_tensors_that_are_counted_stay_in_their_order(tmp_path: Path) -> None:
    """The format's writer sorts "10" before "2"; a learner without names takes its tensors by their place."""
    by_name = {name: np.array(int(name), np.int8) for name in sorted(map(str, range(12)))}
    (tmp_path / "m.safetensors").write_bytes(saved(by_name))
    assert [tensor.array.item() for tensor in document(tmp_path / "m.safetensors").tensors] == list(range(12))


def test_a_file_that_may_run_code_is_not_loaded(tmp_path: Path) -> None:
    """An array of Python objects is pickled in its file: it is refused unread."""
    ran = tmp_path / "ran"

    class Bomb:
        def __reduce__(self) -> Any:
            return Path.touch, (ran,)

    np.savez(tmp_path / "m.npz", good=np.zeros(2), bad=np.array([Bomb()], dtype=object))
    with pytest.raises(InvalidConfig, match=r"m.npz: .*; write it with numpy.savez"):
        model_files.read(tmp_path / "m.npz")
    assert not ran.exists()


def test_what_is_wrong_with_a_file_is_told_with_its_name(tmp_path: Path) -> None:
    """Missing, a folder, another format, no tensors, or a type that cannot travel: one sentence each."""
    np.savez(tmp_path / "words.npz", a=np.array(["x"]))
    np.savez(tmp_path / "brain.npz", a=np.zeros(2, ml_dtypes.bfloat16))
    np.savez(tmp_path / "empty.npz")
    np.save(tmp_path / "one.npy", np.zeros(3))
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "words.npz").read_bytes()[:-30])
    (tmp_path / "empty.safetensors").write_bytes(written({}))
    (tmp_path / "model.pt").write_bytes(b"PK\x03\x04 of torch")
    (tmp_path / "folder.safetensors").mkdir()
    for name, why in {
        **dict.fromkeys(("missing.npz", "missing.safetensors", "missing.msgpack", "folder.safetensors"), ": ."),
        "words.npz": "tensor 'a' has dtype <U1; known: .*float32",
        "brain.npz": "tensor 'a' has dtype .*V2",
        "empty.npz": "it holds no tensors",
        "empty.safetensors": "it holds no tensors",
        "one.npz": "no .npz file: write it with numpy.savez",
        "cut.npz": "no .npz file",
        "model.pt": r"not a weights document: .*; give a weights document, .* ends in .npz or .safetensors",
    }.items():
        with pytest.raises(InvalidConfig, match=why) as caught:
            model_files.read(tmp_path / name)
        assert f"initial weights: {tmp_path / name}: " in caught.value.detail
        assert caught.value.values["file"] == str(tmp_path / name)
