"""The error tree: what its docstring draws is what there is, and a name leads back to its class."""

from __future__ import annotations

import re

import pytest

from services import errors
from services.errors import FederationError

CLASSES = list(FederationError.by_name.values())


def drawn() -> dict[str, str]:
    """Each class of the docstring's drawing and the class that it hangs from."""
    assert errors.__doc__ is not None
    parents: dict[str, str] = {}
    above = ["FederationError"]
    for line in errors.__doc__.splitlines():
        branch = re.match(r"^((?:│   |    )*)[├└]── (.*)", line)
        if branch is None:
            continue
        depth = len(branch[1]) // 4 + 1
        names = re.split(r" · ", branch[2].partition("  ")[0].strip())
        for name in names:
            parents[name] = above[depth - 1]
        above[depth:] = [names[-1]]
    return parents


def test_the_docstring_draws_the_tree() -> None:
    """Every class stands in the drawing under its parent, and nothing else does."""
    assert drawn() == {one.__name__: one.__mro__[1].__name__ for one in CLASSES}
    assert len(drawn()) > 30


@pytest.mark.parametrize("one", CLASSES)
def test_a_name_leads_back_to_its_class(one: type[FederationError]) -> None:
    """The last part of a problem type is the class's name in small letters, and unique."""
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", one.name)
    assert one.name.replace("-", "") == one.__name__.lower()
    assert FederationError.by_name[one.name] is one


@pytest.mark.parametrize("one", CLASSES)
def test_every_error_has_a_title_detail_and_values(one: type[FederationError]) -> None:
    """What went wrong in general, what was wrong here, and the values that matter."""
    error = one("five is too many", limit=4, got=5)
    assert isinstance(error, FederationError)
    assert error.title
    assert error.title != FederationError.title
    assert (error.detail, str(error), error.values) == ("five is too many", "five is too many", {"limit": 4, "got": 5})


def test_only_what_may_succeed_later_is_retryable() -> None:
    """An agent repeats these calls and no others."""
    assert {one.__name__ for one in CLASSES if one.retryable} == {
        "BodyTooSlow",
        "Unavailable",
        "Busy",
        "StoreUnavailable",
        "DiskFull",
        "Unreachable",
        "UnexpectedAnswer",
        "ProxyUnavailable",
    }
