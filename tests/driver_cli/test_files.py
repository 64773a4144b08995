"""Files that are replaced whole."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from driver_cli import files


def test_file_is_replaced_whole_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    """A reader sees the old results or the new ones; a value that is no JSON leaves the old."""
    path = tmp_path / "deep" / "results.json"
    files.write_json(path, {"a": "ü"})
    with pytest.raises(ValueError):  # noqa: PT011 - json's own error: its words are not ours
        files.write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": "ü"}
    assert [entry.name for entry in path.parent.iterdir()] == ["results.json"]


def test_path_that_cannot_be_written_is_found_out_before_the_run(tmp_path: Path) -> None:
    """A folder, or a file used as one, is an error at once."""
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file" / "results.json"):
        with pytest.raises(OSError) as caught:  # noqa: PT011 - its words are the system's
            files.check_writable(path)
        assert caught.value.errno in (errno.EISDIR, errno.EEXIST, errno.ENOTDIR)
