"""Small parts of the driver: files, races, exit statuses."""

from __future__ import annotations

import asyncio
import errno
import json
from pathlib import Path

import pytest

from driver_cli import exits, files
from driver_cli.race import race
from services import errors


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


async def test_race_gives_the_result_and_cancels_what_ran_beside() -> None:
    """Nothing goes on when the main thing is done."""
    cancelled = asyncio.Event()

    async def beside() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async def main() -> int:
        await asyncio.sleep(0)
        return 7

    assert await race(main(), beside()) == 7
    assert cancelled.is_set()


async def test_race_ends_with_the_error_of_what_runs_beside() -> None:
    """A failure beside the main thing is not waited out; one that ends well is."""

    async def failing() -> None:
        raise exits.ChildDied("gone")

    async def fine() -> None:
        return None

    with pytest.raises(exits.ChildDied, match="gone"):
        await race(asyncio.Event().wait(), fine(), failing())


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.InvalidConfig("x"), 2),
        (errors.Unauthenticated("x"), 2),
        (errors.Unreachable("x"), 3),
        (errors.UnexpectedAnswer("x"), 3),
        (errors.RunActive("x"), 1),
        (errors.AggregationFailed("x"), 1),
        (ValueError("x"), 1),
        (KeyboardInterrupt(), 130),
        (exits.Interrupted("x"), 130),
    ],
)
def test_every_error_has_an_exit_status(error: BaseException, status: int) -> None:
    """Scripts tell a failed run from a wrong command from a controller that is not there."""
    assert exits.status_of(error) == status


def test_errors_say_what_to_do_next() -> None:
    """A person learns the next command from the message."""
    assert "metis-controller" in exits.explain(errors.Unreachable("no answer"))
    assert "--attach" in exits.explain(errors.RunActive("run x is active"))
