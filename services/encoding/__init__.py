"""Smaller on the wire, by request: models and updates in fewer bytes, with stated errors. See docs/protocol.md."""

from .codecs import CODECS
from .models import OF_MODELS, decode_model, encode_model, own
from .updates import Sender, decode_update

__all__ = ["CODECS", "OF_MODELS", "Sender", "decode_model", "decode_update", "encode_model", "own"]
