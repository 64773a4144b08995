"""A federation for the tests of the driver."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .processes import LocalFederation


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalFederation]:
    """A controller and two learners, shared by the tests of a file."""
    shared = LocalFederation(tmp_path_factory.mktemp("federation"))
    try:
        shared.start_controller()
        shared.start_learners(2)
        shared.wait_for(2)
        yield shared
    finally:
        shared.end()
