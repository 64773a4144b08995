"""A federation that has had a run, for the commands that look back."""

from __future__ import annotations

import pytest

from ..processes import LocalFederation, metis


@pytest.fixture(scope="module")
def ran(federation: LocalFederation, tmp_path_factory: pytest.TempPathFactory) -> LocalFederation:
    """The federation after a run of two rounds."""
    folder = tmp_path_factory.mktemp("run")
    done = metis("run", "--controller", federation.url, "--rounds", "2", "--learners", "2", cwd=folder)
    assert done.returncode == 0, done.stderr
    return federation
