"""The model in a file: the three formats as one, and what is said of a file that is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from driver_cli.session import initial_model
from services.errors import InvalidConfig
from services.weights import wire
from services.weights.wire import Document

from .safetensors_files import saved, written


def document(path: Path) -> Document:
    """What is sent of a file."""
    return wire.decode(b"".join(bytes(part) for part in initial_model.read(path)))


def test_each_format_gives_the_same_document(tmp_path: Path) -> None:
    """Names are kept, and the order of the file: the digest does not depend on the format."""
    arrays: dict[str, Any] = {"w": np.ones((2, 3), np.float32), "b": np.array(2.0, np.float64), "a": np.arange(3)}
    np.savez(tmp_path / "m.npz", **arrays)
    np.savez_compressed(tmp_path / "small.npz", **arrays)
    (tmp_path / "m.safetensors").write_bytes(saved(arrays))
    parts = wire.encode(wire.name_tensors(list(arrays.values()), list(arrays)))
    (tmp_path / "m.msgpack").write_bytes(b"".join(bytes(part) for part in parts))
    files = ["m.npz", "small.npz", "m.safetensors", "m.msgpack"]
    assert {wire.digest(initial_model.read(tmp_path / name)) for name in files} == {wire.digest(parts)}
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
        initial_model.read(tmp_path / "m.npz")
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
            initial_model.read(tmp_path / name)
        assert f"initial weights: {tmp_path / name}: " in caught.value.detail
        assert caught.value.values["file"] == str(tmp_path / name)
