"""The models that are held: of runs, and those that an operator put. What nobody needs any more leaves the store.

The model that a run names to begin with is made ready, with what goes beside it, before the run starts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from services.config import resolve
from services.engine import begin_with, layout_in
from services.errors import InvalidConfig, UnknownModel
from services.federation import Federation, ModelInfo, RunState, check_names
from services.store import ModelStore
from services.weights import PLAIN, Layout, wire

from .store_calls import StoreCalls


class Models:
    """By digest, with their layouts."""

    def __init__(self, federation: Federation, store: ModelStore, calls: StoreCalls) -> None:
        self._federation = federation
        self._store = store
        self._calls = calls
        self._known: dict[str, tuple[ModelInfo, Layout]] = {}
        self.ordinary: dict[str, bool] = {}  # by digest, of those that were looked at: see checks.check_finite
        self._states: set[str] = set()  # keys of such documents: see know_states

    def find(self, digest: str) -> tuple[ModelInfo, Layout]:
        """What is known of a model that is held; raises UnknownModel."""
        if digest not in self._known:
            raise UnknownModel(f"there is no model {digest}; it may have been replaced by newer ones", model=digest)
        return self._known[digest]

    def held(self, digest: str) -> ModelInfo | None:
        """A model to begin with, if it is held."""
        return ModelInfo(digest, self._known[digest][0].size) if digest in self._known else None

    def know(self, info: ModelInfo, layout: Layout) -> None:
        """A model is in the store."""
        for one in (info, info.coded):
            if one is not None:
                self._known[one.digest] = (one, layout)
                self._calls.cancel(self._store.drop, one.digest)

    def know_states(self, keys: Iterable[str]) -> None:
        """States of a rule or an optimizer, and what learners hold of an algorithm, are in the store."""
        self._states.update(keys)

    async def hold(self, info: ModelInfo) -> None:
        """A model, and what goes with it, is in the store: learn its layout; raises UnknownModel."""
        held = [*info.inputs.values(), info]
        layouts = [await asyncio.to_thread(layout_in, self._store, one.digest) for one in held]
        for one, layout in zip(held, layouts, strict=True):
            self.know(one, layout)

    async def put(self, digest: str, body: memoryview) -> None:
        """Store a model that an operator sent."""
        async with self._calls.order:
            await self._calls.off_loop(self._store.publish, digest, [body])
            await self.hold(ModelInfo(digest, len(body)))

    async def first(
        self, given: Mapping[str, Any], off_loop: Callable[..., Awaitable[Any]]
    ) -> Callable[[str], ModelInfo | None]:
        """Where a run of this configuration finds the model that it begins with."""
        ready: ModelInfo | None = None
        if not self._federation.active:
            async with self._calls.order:
                ready = await first_model(given, self._federation.defaults, self.held, self._store, off_loop)
                if ready:
                    await self.hold(ready)
        return lambda digest: ready if ready and self.held(digest) else self.held(digest)

    def lost(self, run: RunState, why: str, now: float) -> None:
        """The store has no more what an active run needs: it ends."""
        self._federation.stages.end(run, "failed", f"the model store lost what the run needs: {why}", "failure", now)

    def unneeded(self) -> set[str]:
        """Keys of documents that nobody needs."""
        models = self._known.keys() - self._federation.kept_models()
        return models | (self._states - self._federation.runs.kept_states())

    def forget(self, keys: set[str]) -> list[str]:
        """Know those of these keys no longer that are still not needed; returns them."""
        old = sorted(keys & self.unneeded())
        for key in old:
            self._known.pop(key, None)
            self.ordinary.pop(key, None)
            self._states.discard(key)
        return old


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
