"""The weights that a run starts from, when the driver brings them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from services import wire
from services.errors import InvalidConfig, InvalidUpdate
from services.rest import Client


async def put_initial(client: Client, weights: Sequence[NDArray[Any]] | str | Path) -> str:
    """Upload arrays, or the weights document in a file; returns its digest. Raises InvalidConfig for neither."""
    if isinstance(weights, str | Path):
        return await client.put_model([_document(Path(weights))])
    try:
        return await client.put_model(wire.encode(wire.name_tensors(weights)))
    except InvalidUpdate as error:
        raise InvalidConfig(f"initial_weights: {error.detail}", **error.values) from error


def _document(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        wire.decode(content)
    except OSError as error:
        raise InvalidConfig(f"initial weights: {path}: {error.strerror}", file=str(path)) from error
    except InvalidUpdate as error:
        raise InvalidConfig(f"initial weights: {path} is not a weights document: {error.detail}") from error
    return content
