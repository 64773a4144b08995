"""What a community model was made of: written down with its round, so that anybody can make it again and compare.

Models are named by sha256, and so is the configuration. Updates are told apart by xxh3-128 fingerprints of what is
stored: sha256 of all of them would cost more than the round. A fingerprint says which update is not the one that was
counted; that the model follows from the updates is shown by making it again, which must give the same sha256.
"""

from __future__ import annotations

import hashlib

import xxhash
from pydantic import Field

from .. import messages as m
from ..weights import Buffer
from .controls import Shift
from .job import Aggregation, Share
from .rounds import NO_STATES, ModelInfo, States
from .run import RunState

ARITHMETIC = 2  # raise it with a change after which the same updates make other bits of a model


def fingerprint_of(body: Buffer) -> str:
    """What tells whether bytes are those of before; fast, and no more than that: a learner could only fool itself."""
    return xxhash.xxh3_128_hexdigest(body)


class Counted(m.Message):
    """An update as an aggregation counted it."""

    learner: str
    key: str  # in the model store
    fingerprint: str  # xxh3-128 of the stored bytes
    factor: float  # what it counted
    staleness: int = 0
    trained_from: str | None = None  # digest of a model; None: of the aggregation's parent
    previous: Counted | None = None  # the learner's update before, of a rule that keeps it


class Manifest(m.Message):
    """One aggregation: what went in, in its order, and what came out."""

    arithmetic: int = 1  # version of what computes models: only the same one makes the same bits (0.1 wrote none: 1)
    run_id: str
    round: int
    config: str  # digest of the run's whole configuration, as it is stored
    rule: str
    optimizer: str
    learners: int  # known to the federation, those that sent nothing too
    lineage_length: int  # updates that were kept of a learner, 0 for all
    parent: str  # digest
    inputs: dict[str, str]  # digests of what went with the parent
    updates: tuple[Counted, ...]
    beside: dict[str, float] = Field(default_factory=dict)  # by learner: factors of others in the rule's state
    shift: Shift | None = None  # of what goes with the model
    states_before: States = NO_STATES  # keys of the rule's and the server optimizer's state
    states: States = NO_STATES  # those after it
    model: str  # digest
    model_inputs: dict[str, str]  # digests of what goes with the model

    @property
    def key(self) -> str:
        """What it is written down under."""
        return f"{self.run_id}/{self.round}"


def manifest_of(job: Aggregation, run: RunState, model: ModelInfo, states: States, lineage_length: int) -> Manifest:
    """The manifest of a finished aggregation; `states` are the keys of what it left for the next one."""
    return Manifest(
        arithmetic=ARITHMETIC,
        run_id=job.run_id,
        round=job.round,
        config=config_digest(run.config_text),
        rule=run.config.aggregation_rule,
        optimizer=run.config.server_optimizer,
        learners=job.learners,
        lineage_length=lineage_length,
        parent=job.parent.digest,
        inputs=_digests(job.parent),
        updates=tuple([_counted(share) for share in job.shares]),
        beside=dict(job.beside),
        shift=job.shift,
        states_before=job.stored,
        states=states,
        model=model.digest,
        model_inputs=_digests(model),
    )


def config_digest(text: str) -> str:
    """sha256 of a run's configuration as it was stored when the run began, as `canonical` writes it.

    The text is never made anew from a `RunConfig`: a later version has more keys, with defaults, and would change it.
    """
    return f"sha256-{hashlib.sha256(text.encode()).hexdigest()}"


def _counted(share: Share) -> Counted:
    return Counted(
        learner=share.learner,
        key=share.blob,
        fingerprint=share.fingerprint,
        factor=share.factor,
        staleness=share.staleness,
        trained_from=share.trained_from.digest if share.trained_from else None,
        previous=_counted(share.previous) if share.previous else None,
    )


def _digests(model: ModelInfo) -> dict[str, str]:
    return {name: info.digest for name, info in model.inputs.items()}
