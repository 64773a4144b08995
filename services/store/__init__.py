"""Model stores by the name that a user types."""

from __future__ import annotations

from pathlib import Path

from ..config import ModelStoreConfig, nearest
from ..errors import InvalidConfig
from .base import Draft, ModelStore, StoreFactory, buffered
from .disk import OnDisk
from .memory import InMemory

STORES: dict[str, StoreFactory] = {
    "InMemory": lambda config, folder: InMemory(config.lineage_length),
    "OnDisk": lambda config, folder: OnDisk(folder / "models", config.lineage_length),
}


def open_store(config: ModelStoreConfig, folder: Path) -> ModelStore:
    """The store that `config` names, keeping its files below `folder`; raises InvalidConfig for an unknown name."""
    if config.model_store not in STORES:
        raise InvalidConfig(f"model_store: there is no {config.model_store!r}{nearest(config.model_store, STORES)}")
    return STORES[config.model_store](config, folder)


__all__ = ["STORES", "Draft", "InMemory", "ModelStore", "OnDisk", "buffered", "open_store"]
