"""The model that a run names to begin with: what the run needs beside it is made and stored before the run starts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from services.config import resolve
from services.engine import begin_with
from services.errors import InvalidConfig
from services.federation import ModelInfo, check_names
from services.store import ModelStore
from services.weights import PLAIN, wire


async def first_model(
    given: Mapping[str, Any],
    defaults: Mapping[str, Any],
    held: Callable[[str], ModelInfo | None],
    store: ModelStore,
    off_loop: Callable[..., Awaitable[Any]],
) -> ModelInfo | None:
    """The held model that a run of this configuration begins with, and with it what stands for it or goes with it.

    None when there is no such model, or the run wants nothing beside it.
    """
    try:
        config = resolve(defaults, given)
        down, extras = config.encoding.down, check_names(config).algorithm.extras
    except InvalidConfig:  # told when the run is started, after what else may be wrong
        return None
    model = held(config.initial_model) if config.initial_model else None
    if model is None or (down == PLAIN and not extras):
        return None
    tensors = wire.decode(await off_loop(store.get, model.digest)).tensors
    return await asyncio.to_thread(begin_with, store, model, tensors, down, extras)
