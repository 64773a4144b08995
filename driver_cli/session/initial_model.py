"""The model that a run starts from: arrays, a weights document, an `.npz` or `.safetensors` file, a run's last."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.errors import InvalidConfig, InvalidUpdate, MalformedUpdate
from services.rest import Client
from services.weights import Buffer, Tensor, wire

from . import safetensors

KNOWN = "a weights document, as --model-out writes it, or a file that ends in .npz or .safetensors"


async def put_initial(client: Client, weights: Sequence[NDArray[Any]] | str | Path) -> str:
    """Upload arrays, or the model in a file (see `read`); returns its digest. Raises InvalidConfig for neither."""
    source = f"initial weights: {weights}" if isinstance(weights, str | Path) else "initial_weights"
    try:
        if isinstance(weights, str | Path):
            return await client.put_model(read(Path(weights)))
        return await client.put_model(wire.encode(wire.name_tensors(weights)))
    except InvalidUpdate as error:
        raise InvalidConfig(f"{source}: {error.detail}", **error.values) from error


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
