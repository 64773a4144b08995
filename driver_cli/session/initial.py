"""The weights that a run starts from, when the driver brings them or names the run that made them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from services import wire
from services.errors import InvalidConfig, InvalidUpdate
from services.rest import Client

from . import model_files


async def put_initial(client: Client, weights: Sequence[NDArray[Any]] | str | Path) -> str:
    """Upload arrays, or the model in a file (see model_files); returns its digest. Raises InvalidConfig for neither."""
    source = f"initial weights: {weights}" if isinstance(weights, str | Path) else "initial_weights"
    try:
        if isinstance(weights, str | Path):
            return await client.put_model(model_files.read(Path(weights)))
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
