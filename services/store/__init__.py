"""Model stores by the name that a user types."""

from __future__ import annotations

from pathlib import Path

from ..config import ModelStoreConfig, nearest
from ..errors import InvalidConfig
from ..weights import Buffer
from .base import KEY, Draft, ModelStore, StoreFactory, buffered
from .disk import FOLDER, UNFINISHED, OnDisk, mapped
from .memory import InMemory
from .redis import PREFIX, Redis

STORES: dict[str, StoreFactory] = {
    "InMemory": lambda config, folder: InMemory(config.lineage_length),
    "OnDisk": lambda config, folder: OnDisk(folder / FOLDER, config.lineage_length, config.fsync),
    "Redis": lambda config, folder: Redis(
        config.model_store_url.get_secret_value() if config.model_store_url else None,
        hostname=config.model_store_hostname,
        port=config.model_store_port,
        prefix=config.model_store_prefix or PREFIX,
        lineage_length=config.lineage_length,
    ),
}

DURABLE = {one.name for one in (InMemory, OnDisk, Redis) if one.durable}


def is_durable(config: ModelStoreConfig) -> bool:
    """Whether the models of the store that `config` names outlive the controller."""
    return config.model_store in DURABLE


def open_store(config: ModelStoreConfig, folder: Path) -> ModelStore:
    """The store that `config` names, keeping its files below `folder`; raises InvalidConfig for an unknown name."""
    if config.model_store not in STORES:
        raise InvalidConfig(f"model_store: there is no {config.model_store!r}{nearest(config.model_store, STORES)}")
    return STORES[config.model_store](config, folder)


__all__ = [
    "FOLDER",
    "KEY",
    "STORES",
    "UNFINISHED",
    "Buffer",
    "Draft",
    "InMemory",
    "ModelStore",
    "OnDisk",
    "Redis",
    "buffered",
    "is_durable",
    "mapped",
    "open_store",
]
