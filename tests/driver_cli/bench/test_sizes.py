"""Model sizes and numbers of learners, as they are written."""

from __future__ import annotations

import math

import pytest

from driver_cli.bench.sizes import counts, sizes
from learner_agent.synthetic import layer_shapes
from services.errors import InvalidConfig


@pytest.mark.parametrize(
    ("asked", "width", "params"),
    [
        ("100k", 32, 106_081),
        ("1M", 100, 1_011_501),
        ("10M", 320, 10_276_801),
        ("106081", 32, 106_081),
        ("10276801", 320, 10_276_801),
        ("1", 1, 216),
    ],
)
def test_sizes_are_those_of_the_paper(asked: str, width: int, params: int) -> None:
    """13w + w + 100(w² + w) + w + 1 parameters of width w; the learners make the same model."""
    (size,) = sizes(asked)
    assert (size.name, size.width, size.params, size.nbytes) == (asked, width, params, 4 * params)
    assert sum(math.prod(shape) for shape in layer_shapes(size.asked_of_learners)) == params


@pytest.mark.parametrize("text", ["", "0", "-1", "10G", "1e6", "k", "100k,", "2000M"])
def test_sizes_that_are_none(text: str) -> None:
    """The message shows how one is written."""
    with pytest.raises(InvalidConfig, match="write 106081, 100k or 10M"):
        sizes(text)


@pytest.mark.parametrize("text", ["", "0", "x", "5,,6", "1001"])
def test_counts_that_are_none(text: str) -> None:
    """From 1 to what is allowed."""
    assert counts("1, 1000", 1000) == [1, 1000]
    with pytest.raises(InvalidConfig, match="from 1 to 1000"):
        counts(text, 1000)
