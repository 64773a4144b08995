"""The contract over HTTP: who may call, the routes, the pages, and the OpenAPI document."""

from __future__ import annotations

from .answers import Answer, Refused
from .gate import Gate
from .openapi import describe
from .origins import shared
from .pages import page_routes

__all__ = ["Answer", "Gate", "Refused", "describe", "page_routes", "shared"]
