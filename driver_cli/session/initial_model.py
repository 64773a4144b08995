"""The model that a run starts from: arrays, a torch module, a file, the last one of a run."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from services.errors import InvalidConfig, InvalidUpdate, MalformedUpdate
from services.rest import Client
from services.weights import Buffer, Tensor, wire

from . import safetensors

EXTRA_STATE = "_extra_state"  # ends the names in a state_dict() of what is no tensor
KNOWN = "a weights document, as --model-out writes it, or a file that ends in .npz or .safetensors"


@runtime_checkable
class Module(Protocol):
    """A torch module."""

    def state_dict(self) -> Mapping[str, Any]:
        """Its tensors by name."""
        ...

    def named_parameters(self, *, remove_duplicate: bool) -> Iterable[tuple[str, Any]]:
        """Those that are parameters."""
        ...


Weights: TypeAlias = Sequence[NDArray[Any]] | Mapping[str, Any] | Module | str | Path


async def put_initial(client: Client, weights: Weights) -> str:
    """Upload a model (see `read` for one in a file, `tensors_of_given` for others); returns its digest. Raises
    InvalidConfig for what is no model."""
    source = f"initial weights: {weights}" if isinstance(weights, str | Path) else "initial_weights"
    try:
        if isinstance(weights, str | Path):
            return await client.put_model(read(Path(weights)))
        return await client.put_model(wire.encode(tensors_of_given(weights)))
    except InvalidUpdate as error:
        raise InvalidConfig(f"{source}: {error.detail}", **error.values) from error


def tensors_of_given(weights: Sequence[NDArray[Any]] | Mapping[str, Any] | Module) -> Sequence[Tensor]:
    """Of a list of arrays or torch tensors, a dict of them by name, a torch module or its `state_dict()`.

    A module says what is trainable; of the others every tensor is. Raises InvalidUpdate for what is none of them.
    """
    if isinstance(weights, Module):
        moved = {name for name, one in weights.named_parameters(remove_duplicate=False) if one.requires_grad}
        tensors = {name: _array(name, value) for name, value in weights.state_dict().items() if _is_torch(value)}
        return wire.name_tensors(list(tensors.values()), list(tensors), [name in moved for name in tensors])
    if isinstance(weights, Mapping):
        kept = {str(name): value for name, value in weights.items() if not str(name).endswith(EXTRA_STATE)}
        return wire.name_tensors([_array(name, value) for name, value in kept.items()], list(kept))
    if isinstance(weights, np.ndarray) or not isinstance(weights, Sequence):
        raise MalformedUpdate(
            f"{type(weights).__name__} is no model: give a list of arrays, a dict of arrays by name, a torch module or"
            " its state_dict(), or the path of a file"
        )
    return wire.name_tensors([_array(str(index), value) for index, value in enumerate(weights)])


def _is_torch(value: object) -> bool:
    """Whether it is a torch tensor; torch itself is not imported here."""
    return callable(getattr(value, "detach", None))


def _array(name: str, value: Any) -> NDArray[Any]:
    """A tensor as an array. Raises MalformedUpdate, naming it."""
    if _is_torch(value):
        host = value.detach().cpu()
        try:
            if str(host.dtype) == "torch.bfloat16":  # numpy has no such type; float32 holds each of its numbers
                return np.asarray(host.float().numpy()).astype(ml_dtypes.bfloat16)
            return np.asarray(host.numpy())
        except (TypeError, RuntimeError) as error:
            raise MalformedUpdate(f"tensor {name!r} ({host.dtype}) has no numpy form: {error}") from error
    array = np.asarray(value)
    if array.dtype == object:
        raise MalformedUpdate(f"tensor {name!r} is {type(value).__name__}, no array of numbers")
    return array


async def model_of_run(client: Client, run_id: str) -> str:
    """Digest of the final model of a run that the controller remembers; `latest` stands for an id.

    Raises UnknownRun, InvalidConfig when the run goes on or has made no model.
    """
    run = await client.run(run_id)
    if run.ended_at is None:
        raise InvalidConfig(f"run {run.id} is {run.state}: to go on from it, stop it or wait for its end", run=run.id)
    if run.model is None:
        raise InvalidConfig(f"run {run.id} made no model to go on from: {run.reason}", run=run.id)
    return run.model


def read(path: Path) -> Sequence[Buffer]:
    """The weights document of a file, in parts; raises InvalidConfig naming the file and what is wrong with it.

    What is trainable is said by a weights document alone; of the other two every tensor is.
    """
    try:
        if path.suffix == ".npz":
            return _framed(_npz(path))
        content = path.read_bytes()
        if path.suffix == ".safetensors":
            return _framed(_in_order(safetensors.read(memoryview(content))))
        wire.decode(content)
        return [content]
    except OSError as error:
        raise InvalidConfig(f"initial weights: {path}: {error.strerror or error}", file=str(path)) from error
    except InvalidUpdate as error:
        hint = "" if path.suffix in (".npz", ".safetensors") else f"; give {KNOWN}"
        raise InvalidConfig(f"initial weights: {path}: {error.detail}{hint}", file=str(path)) from error


def _framed(tensors: Sequence[Tensor]) -> Sequence[Buffer]:
    if not tensors:
        raise MalformedUpdate("it holds no tensors")
    return wire.encode(tensors)


def _npz(path: Path) -> list[Tensor]:
    """The arrays of a file of `numpy.savez`, never the Python objects that one can hold too."""
    if not zipfile.is_zipfile(path):
        path.stat()
        raise MalformedUpdate("no .npz file: write it with numpy.savez(file, **arrays)")
    try:
        with np.load(path, allow_pickle=False) as file:
            return [Tensor(name, file[name]) for name in file.files]
    except (ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error, MemoryError) as error:
        raise MalformedUpdate(f"{error}; write it with numpy.savez(file, **arrays), of plain arrays") from error


def _in_order(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    """Tensors that are only counted, "0", "1", …, "10", in that order; the format's own writer sorts by name."""
    names = [tensor.name for tensor in tensors]
    if sorted(names) == sorted(map(str, range(len(names)))):
        return sorted(tensors, key=lambda tensor: int(tensor.name))
    return tensors
