"""Header fields from the network, read in time that grows with their length and no faster: no regular expression."""

from __future__ import annotations

MOST_DIGITS = 18


def number_in(text: str) -> int | None:
    """A whole number in decimal digits; None for everything else, and for more than MOST_DIGITS of them."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= MOST_DIGITS else None


def media_type(field: str) -> str:
    """The type of a Content-Type field, without its parameters."""
    return field.partition(";")[0].strip().lower()


def names_tag(field: str, etag: str, strong: bool = False) -> bool:
    """Whether an If-None-Match field, or, in the strong comparison, an If-Match field names this entity tag, which is
    given in its quotes. A tag holds no quotes, so it needs no reading of the list (RFC 9110, section 8.8.3)."""
    if strong:
        field = field.replace(f"W/{etag}", "")
    return field.strip() == "*" or etag in field


def byte_range(field: str) -> tuple[int | None, int | None] | None:
    """First and last position of a Range field in bytes, `(None, n)` for the last n; None for what is no single range
    of bytes, which is to be ignored (RFC 9110, section 14.2)."""
    unit, _, wanted = field.partition("=")
    first, dash, last = (part.strip() for part in wanted.partition("-"))
    if unit.strip().lower() != "bytes" or not dash or not (first or last):
        return None
    positions = number_in(first), number_in(last)
    if (first and positions[0] is None) or (last and positions[1] is None):
        return None
    return positions
