"""A round made again of what the store still holds of it, and compared with its manifest."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from ..aggregation import Imprecise
from ..algorithms import own_key
from ..config import stored
from ..errors import FederationError, StoreUnavailable, UnknownModel
from ..federation import (
    ARITHMETIC,
    Aggregation,
    Counted,
    Manifest,
    ModelInfo,
    Plan,
    Share,
    config_digest,
    fingerprint_of,
    plan,
)
from ..scaling import cap_factors
from ..store import ModelStore
from ..weights import wire
from .local import Made, aggregate
from .rule_state import load_state

Read = Callable[[str], memoryview]
PARTS = ("rule", "server optimizer")  # whose states a manifest names
SHOWN = 12  # characters of a digest


@dataclass(frozen=True)
class Verdict:
    """What became of a round that was looked at."""

    state: Literal["same", "differs", "not kept", "not made again"]
    text: str


def verify(manifest: Manifest, before: Manifest | None, config_text: str, kept: Read, aside: ModelStore) -> Verdict:
    """Look at what is kept of a round, make its model again when all of it is, and compare.

    `kept` reads what the controller's store holds. `aside` reads the same, takes what is made, and begins empty.
    `before` is the manifest of the round before, if it is known; `config_text` the run's configuration as it is stored.
    A round of another arithmetic than this program's may come out as other bits: that would prove nothing.
    """
    found = _Looking(manifest, kept)
    wrong = [*_links(manifest, before, config_text), *found.wrong]
    if wrong:
        return _differs(*wrong)
    if found.missing:
        missing = ", ".join(found.missing)
        return Verdict("not kept", f"not kept: {missing}; lineage_length was {manifest.lineage_length}")
    parts = plan(stored(json.loads(config_text)))
    try:
        job = _job(manifest, parts, aside)
        wrong = [
            f"the factor of {update.learner} is {update.factor:g}, its metadata make it {share.reported:g}"
            + (f", which counts as {share.factor:g}" if share.factor != share.reported else "")
            for update, share in zip(manifest.updates, job.shares, strict=True)
            if update.factor != share.factor
        ]
        wrong += _compared(manifest, aggregate(job, aside, lambda: 0.0), kept, aside)
    except StoreUnavailable:
        raise
    except (FederationError, Imprecise) as error:
        why = error.detail if isinstance(error, FederationError) else "it was made of a state that has lost digits"
        wrong = [f"the model cannot be made again: {why}"]
    if wrong and manifest.arithmetic != ARITHMETIC:
        made_by = f"made by version {manifest.arithmetic} of the arithmetic, this program has {ARITHMETIC}"
        return Verdict("not made again", f"not made again: {made_by}")
    return _differs(*wrong) if wrong else Verdict("same", "recomputed: same")


class _Looking:
    """Looks at everything that a round was made of: what is not there, and what is not what it was."""

    def __init__(self, manifest: Manifest, kept: Read) -> None:
        self._kept = kept
        self.missing: list[str] = []
        self.wrong: list[str] = []
        for digest, what in _models(manifest).items():
            self._model(digest, what)
        self._updates(manifest.updates)
        for key, part in zip(manifest.states_before, PARTS, strict=True):
            if key is not None and self._find(key) is None:
                self.missing.append(f"the state of the {part} before it")
        held = [one for one in manifest.shift.held if one.blob] if manifest.shift else []
        for name in manifest.inputs:
            if gone := sum(self._find(own_key(name, one.blob)) is None for one in held):
                self.missing.append(f"what {gone} of {len(held)} learners held of {name}")

    def _model(self, digest: str, what: str) -> None:
        document = self._find(digest)
        if document is None:
            self.missing.append(what)
        elif wire.digest([document]) != digest:
            self.wrong.append(f"{what} was changed")

    def _updates(self, updates: tuple[Counted, ...]) -> None:
        gone = 0
        for update in updates:
            gone += not self._update(update, f"update of {update.learner}")
            if update.previous and not self._update(update.previous, f"previous update of {update.learner}"):
                self.missing.append(f"the previous update of {update.learner}")
        if gone:
            self.missing.append(f"{gone} of {len(updates)} updates")

    def _update(self, update: Counted, what: str) -> bool:
        """Whether it is there."""
        document = self._find(update.key)
        if document is not None and fingerprint_of(document) != update.fingerprint:
            self.wrong.append(f"{what} was changed")
        return document is not None

    def _find(self, key: str) -> memoryview | None:
        try:
            return self._kept(key)
        except UnknownModel:
            return None


def _models(manifest: Manifest) -> Mapping[str, str]:
    """What the round needs by digest, with a name for people."""
    beside = {digest: f"what went with its parent as {name}" for name, digest in manifest.inputs.items()}
    bases = {one.trained_from: f"the model that {one.learner} trained from" for one in manifest.updates}
    return {**{key: what for key, what in bases.items() if key}, **beside, manifest.parent: "its parent"}


def _links(manifest: Manifest, before: Manifest | None, config_text: str) -> Iterator[str]:
    if config_digest(config_text) != manifest.config:
        yield "the configuration of the run was changed"
    if before is not None and before.round == manifest.round - 1 and before.model != manifest.parent:
        yield f"its parent is not the model of round {before.round}"


def _job(manifest: Manifest, parts: Plan, store: ModelStore) -> Aggregation:
    """The aggregation as it was handed out."""
    given = [_share(update, parts, store) for update in manifest.updates]
    counts = cap_factors([share.reported for share in given], parts.factor_cap, manifest.beside.values())
    shares = tuple([replace(share, factor=count) for share, count in zip(given, counts, strict=True)])
    rule, optimizer = [load_state(store, key) for key in manifest.states_before]
    parent = _info(manifest.parent, store, manifest.inputs)
    number, learners = manifest.round, manifest.learners
    beside = manifest.beside
    return Aggregation(
        manifest.run_id,
        number,
        parent,
        shares,
        parts,
        rule,
        optimizer,
        learners,
        shift=manifest.shift,
        beside=beside,
    )


def _share(update: Counted, parts: Plan, store: ModelStore) -> Share:
    """As it was counted; the factor is compared with `reported`, that which its metadata make."""
    document = wire.parse(store.get(update.key))
    return Share(
        learner=update.learner,
        blob=update.key,
        factor=update.factor,
        reported=parts.scaler.factor(document.metadata),
        metrics=document.metrics,
        metadata=document.metadata,
        trained_from=_info(update.trained_from, store) if update.trained_from else None,
        staleness=update.staleness,
        previous=_share(update.previous, parts, store) if update.previous else None,
    )


def _info(digest: str, store: ModelStore, inputs: Mapping[str, str] | None = None) -> ModelInfo:
    beside = {name: _info(one, store) for name, one in (inputs or {}).items()}
    return ModelInfo(digest, len(store.get(digest)), inputs=beside)


def _compared(manifest: Manifest, made: Made, kept: Read, aside: ModelStore) -> Iterator[str]:
    """In which words what was made again is not what the manifest says, or not what is stored."""
    if made.model.digest != manifest.model:
        yield f"its updates make the model {_short(made.model.digest)}"
    for name, info in made.model.inputs.items():
        if manifest.model_inputs.get(name) != info.digest:
            yield f"its updates make another {name}"
    for part, key, again in zip(PARTS, manifest.states, made.stored, strict=True):
        if key != again or (key and _held(kept, key, aside.get(key)) != aside.get(key)):
            yield f"the state of the {part} after it is another"
    if made.model.digest == manifest.model:
        stored = _held(kept, manifest.model, aside.get(manifest.model))
        if stored != aside.get(manifest.model):
            yield "the stored model was changed"


def _held(kept: Read, key: str, instead: memoryview) -> memoryview:
    try:
        return kept(key)
    except UnknownModel:
        return instead


def _differs(*wrong: str) -> Verdict:
    return Verdict("differs", f"differs: {'; '.join(wrong)}")


def _short(digest: str) -> str:
    return digest.removeprefix("sha256-")[:SHOWN]
