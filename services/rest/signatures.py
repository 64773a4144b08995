"""Signatures of webhooks, made and checked: Standard Webhooks, HMAC-SHA256 over `id.timestamp.body`.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping

ID, TIMESTAMP, SIGNATURE = "webhook-id", "webhook-timestamp", "webhook-signature"
PREFIX = "whsec_"
TOLERANCE_S = 300  # how far the two clocks may be apart
MAX_ID = 256  # characters


def secret_of(key: bytes) -> str:
    """A key as the text in which it is handed over: `whsec_` and its base64."""
    return PREFIX + base64.b64encode(key).decode()


def sign(secret: str, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The three headers of a webhook; `timestamp` is in seconds since 1970. Raises ValueError for a bad secret."""
    signature = _signature(secret, message_id, str(timestamp), body)
    return {ID: message_id, TIMESTAMP: str(timestamp), SIGNATURE: signature.decode()}


def is_genuine(secret: str, headers: Mapping[str, str], body: bytes, now: float) -> bool:
    """Whether the holder of the secret signed exactly this, no more than TOLERANCE_S before or after `now`.

    The header may hold several signatures (while a key is replaced): one that fits is enough.
    """
    message_id, timestamp = headers.get(ID, ""), headers.get(TIMESTAMP, "")
    if not 0 < len(message_id) <= MAX_ID or not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12):
        return False
    expected = _signature(secret, message_id, timestamp, body)
    given = [one.encode() for one in headers.get(SIGNATURE, "").split(" ")]
    fits = any([hmac.compare_digest(expected, one) for one in given])  # a list: each is compared, whichever fits
    return fits and abs(now - int(timestamp)) <= TOLERANCE_S


def _signature(secret: str, message_id: str, timestamp: str, body: bytes) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except binascii.Error as error:
        raise ValueError("a webhook secret is whsec_ and base64") from error
    signed = f"{message_id}.{timestamp}.".encode() + body
    return b"v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest())
