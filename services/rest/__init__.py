"""The client's side of the HTTP contract."""

from .backoff import FullJitter
from .client import Client
from .exchange import digest_of, in_clear, is_loopback
from .signatures import ID, TOLERANCE_S, is_genuine, secret_of, sign

__all__ = [
    "ID",
    "TOLERANCE_S",
    "Client",
    "FullJitter",
    "digest_of",
    "in_clear",
    "is_genuine",
    "is_loopback",
    "secret_of",
    "sign",
]
