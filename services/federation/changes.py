"""What changed in the federation since it was last written down."""

from __future__ import annotations

from dataclasses import dataclass, field

from .manifest import Manifest


@dataclass
class Changes:
    """Ids of what was made, changed or removed."""

    members: set[str] = field(default_factory=set)
    tasks: set[str] = field(default_factory=set)
    runs: set[str] = field(default_factory=set)
    participants: set[tuple[str, str]] = field(default_factory=set)  # of a run, who left it or was there at its end
    forgotten: set[str] = field(default_factory=set)  # runs that are not remembered any more
    uploaded: bool = False  # models that an operator put
    manifests: list[Manifest] = field(default_factory=list)  # of community models that were made

    def __bool__(self) -> bool:
        return bool(self.members or self.tasks or self.runs or self.forgotten or self.uploaded)

    def clear(self) -> None:
        """All of it is written down."""
        for ids in (self.members, self.tasks, self.runs, self.participants, self.forgotten):
            ids.clear()
        self.manifests.clear()
        self.uploaded = False
