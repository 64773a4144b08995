"""References become the addresses that RFC 3986 says, also on the quick way; which addresses are asked in clear."""

from __future__ import annotations

from urllib.parse import urljoin

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.rest.exchange import in_clear, join, origin

BASES = st.sampled_from(
    ["http://host:1/v1/learners/x/task?wait=6", "https://host/prefix/v1/learners/x/task", "http://host/", "http://host"]
)
SEGMENT = st.text("abc-_.", min_size=1, max_size=4)


@given(base=BASES, up=st.integers(0, 3), segments=st.lists(SEGMENT, max_size=4), query=st.sampled_from(["", "?a=1"]))
def test_it_is_what_the_standard_library_makes(base: str, up: int, segments: list[str], query: str) -> None:
    """Whatever the dots."""
    reference = "../" * up + "/".join(segments) + query
    assert join(base, reference) == urljoin(base, reference)


@pytest.mark.parametrize("reference", ["/v1/x", "//other/x", "http://other/x", "https://other/a/../b", "?x", ""])
def test_other_references_too(reference: str) -> None:
    """From the root, of another authority, absolute, of the query alone."""
    base = "http://host/v1/a/b"
    wanted = reference if reference.startswith("http") else urljoin(base, reference)
    assert join(base, reference) == wanted


def test_an_origin_is_scheme_and_authority() -> None:
    """Whatever the path."""
    assert origin("http://host:80/a") == origin("http://host:80/b?c") != origin("https://host:80/a")


def test_what_travels_in_clear() -> None:
    """By http, to whatever is not this machine for certain: a name may lead anywhere."""
    here = ("http://localhost", "http://LOCALHOST:80", "http://127.8.8.8", "http://[::1]:8080", "https://fl.example")
    elsewhere = ("http://fl.example", "http://localhost.example", "http://10.0.0.7", "http://0.0.0.0", "http://[::2]")
    assert [in_clear(url) for url in (*here, *elsewhere)] == [False] * 5 + [True] * 5
