"""The model in a file: the three formats as one, and what is said of a file that is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from driver_cli.session import initial_model
from services.errors import InvalidConfig, MalformedUpdate
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


# ---- what Python holds
def test_arrays_by_name_keep_their_names_and_their_order() -> None:
    """A dict of arrays is the document of an .npz of the same."""
    given: dict[str, Any] = {"w": np.ones((2, 3), np.float32), "b": [1.0, 2.0], "n": np.array(3)}
    made = initial_model.tensors_of_given(given)
    assert [(one.name, one.dtype.name, one.shape) for one in made] == [
        ("w", "float32", (2, 3)),
        ("b", "float64", (2,)),
        ("n", "int64", ()),
    ]
    assert [one.name for one in initial_model.tensors_of_given(list(given.values()))] == ["0", "1", "2"]


def test_a_module_and_its_state_give_its_tensors() -> None:
    """Under their names, of their dtypes, on the host; the module says what is trainable, extra state stays."""
    torch = pytest.importorskip("torch")

    class Extra(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.inner = torch.nn.Sequential(torch.nn.Linear(2, 1), torch.nn.BatchNorm1d(1)).bfloat16()
            self.inner[0].bias.requires_grad_(False)

        def get_extra_state(self) -> str:
            return "any object"

        def set_extra_state(self, state: str) -> None:
            pass

    module = Extra()
    of_module = initial_model.tensors_of_given(module)
    of_state = initial_model.tensors_of_given(module.state_dict())
    told = {"inner.0.weight": True, "inner.0.bias": False, "inner.1.weight": True, "inner.1.bias": True}
    assert {one.name: one.trainable for one in of_module if one.name in told} == told
    assert not any(one.trainable for one in of_module if one.name not in told)
    assert [one.name for one in of_state] == [one.name for one in of_module]
    assert [one.dtype.name for one in of_module][:2] == ["bfloat16", "bfloat16"]
    assert all(a.array.tobytes() == b.array.tobytes() for a, b in zip(of_module, of_state, strict=True))
    assert initial_model.tensors_of_given(list(module.parameters()))[0].shape == (1, 2)


@pytest.mark.parametrize("given", [np.zeros(3), 3, object(), {"w": object()}, [None]])
def test_what_is_no_model_is_refused_in_a_sentence(given: Any) -> None:
    """With what may be given instead, or the tensor that is none."""
    with pytest.raises(
        MalformedUpdate, match=r"no model: give a list of arrays|tensor '[w0]' is .*no array of numbers"
    ):
        initial_model.tensors_of_given(given)
