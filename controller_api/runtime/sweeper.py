"""What nobody needs any more goes, once that is written down: models, updates of learners that left, parts of uploads.

Until then it is what a restart would begin with.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from services.errors import FederationError
from services.federation import Federation
from services.store import ModelStore

from ..durability import Models, StoreCalls
from ..transport import Uploads


class Sweeper:
    """Of one federation. `left` are learners whose updates are still to be erased."""

    def __init__(
        self,
        federation: Federation,
        models: Models,
        uploads: Uploads,
        store: ModelStore,
        calls: StoreCalls,
        kept: Callable[[], Awaitable[None]],
    ) -> None:
        self.left: set[str] = set()
        self._federation = federation
        self._models = models
        self._uploads = uploads
        self._store = store
        self._calls = calls
        self._kept = kept

    async def sweep(self) -> None:
        """Drop it now; what cannot be written down is left for the next time."""
        self._uploads.keep(self._federation.offers.is_open, self._federation.roster.find)
        old = self._models.unneeded()
        released, self._federation.released = self._federation.released, []
        try:
            await self._kept()
        except FederationError:
            self._federation.released = released + self._federation.released
            return
        gone = [one for one in self.left if not self._federation.awaits_update_of(one)]
        self.left.difference_update(gone)
        await self._calls.owe(
            *((self._store.remember, *update) for update in released),
            *((self._store.drop, key) for key in self._models.forget(old)),
            *((self._store.erase, one) for one in gone),
        )
