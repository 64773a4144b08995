"""What a run leaves behind on the driver's side: `results.json`, the final model, the best one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.errors import NotFound
from services.rest import Client

from .. import files
from ..show import words


@dataclass(frozen=True)
class Outputs:
    """Where the results go; None leaves that file out."""

    results: str | Path | None = None
    model: str | Path | None = None
    best: str | Path | None = None

    def check(self) -> None:
        """Raise OSError for a path that cannot be written, before a run is spent on it."""
        for path in (self.results, self.model, self.best):
            if path is not None:
                files.check_writable(path)

    def write_results(self, results: dict[str, Any], note: Callable[[str], None]) -> None:
        """Write the results."""
        if self.results is not None:
            files.write_json(self.results, results)
            note(f"results: {self.results}")

    async def write_models(self, client: Client, run_id: str, note: Callable[[str], None]) -> None:
        """Download and write the models that were asked for; a run without one says so."""
        for which, path in (("latest", self.model), ("best", self.best)):
            if path is not None:
                await _write_model(client, run_id, which, path, note)


async def _write_model(client: Client, run_id: str, which: str, path: str | Path, note: Callable[[str], None]) -> None:
    try:
        document = await client.run_model(run_id, which)
    except NotFound as error:
        note(f"no {which} model: {error.detail}")
        return
    await asyncio.to_thread(files.write, path, document)
    note(f"{which} model: {path} ({words.size(len(document))})")
