"""Everything that can go wrong in a federation, as one tree of exceptions; no HTTP in it.

FederationError
├── NotParseable                   the bytes are not what they claim to be (JSON, a number, a header)
├── Unauthenticated                no credential, or an unknown one
├── Forbidden                      a known credential that may not do this
├── NotFound
│   ├── UnknownLearner · UnknownTask · UnknownRun · UnknownModel
├── MethodNotAllowed
├── Misdirected                    a name of the controller under which it does not answer
├── PreconditionFailed             what is there is not what If-Match names
├── HeadTooLarge                   the head of a request is longer than the limit
├── HeadTooSlow                    the head of a request did not arrive in time
├── BodyTooSlow                    the body did not arrive in time
├── Conflict
│   ├── NameTaken                  another learner has this name
│   ├── RunActive                  one run at a time
│   ├── NotManual                  rounds of this run advance by themselves
│   ├── UploadOffset                   a part of an upload does not begin where the last one ended
│   ├── RoundClosed                the update came too late
│   └── DifferentBody              the same task or key was answered before with another body
├── Gone
│   ├── TaskVoid                   the task is no longer wanted
│   └── FederationOver             the controller is shutting down
├── TooLarge                       longer than the limit
├── UnsupportedMediaType
├── RangeNotSatisfiable
├── InvalidRequest                 well-formed JSON with wrong keys or values
│   └── InvalidConfig              a run's configuration that cannot work
├── InvalidUpdate                  a tensor is absurdly far from the round's model, or what these say
│   ├── MalformedUpdate            not a weights document
│   ├── DigestMismatch             the bytes are not those that the digest names
│   ├── ShapeMismatch              other tensors than the round's model has
│   ├── NonFiniteUpdate            NaN or infinity in a tensor
│   └── InvalidWeight              a number beside the tensors that is missing or out of range
├── Unavailable
│   ├── Busy                       try again later
│   └── StoreUnavailable           the model store does not answer
├── DiskFull
├── AggregationFailed              the updates of a round could not be combined
├── Unreachable                    no connection to the controller
└── UnexpectedAnswer               an answer that is not of this contract (a proxy's page, say)
    ├── NotOfThisContract          a definite one, of something else than a controller: repeating does not help
    ├── ProxyUnavailable           a proxy says that it cannot at the moment: the controller may be away behind it
    └── ProxyRefused               a proxy refuses this again and again, while the controller answers other calls

Each class has a `name` (the last part of its problem type `/errors/<name>`), made from the class's own name, a
`title`, and says whether the same call may succeed later (`retryable`). `detail` is a sentence for people, `values`
are the numbers and names that matter. `by_name` turns a name back into its class.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar


class FederationError(Exception):
    """Base of the tree. `FederationError("what was wrong and what to do", limit=5)`."""

    name: ClassVar[str] = "federation-error"
    title: ClassVar[str] = "The federation refused"
    retryable: ClassVar[bool] = False
    by_name: ClassVar[dict[str, type[FederationError]]] = {}

    def __init_subclass__(cls, title: str, retryable: bool = False) -> None:
        cls.name = re.sub(r"(?<!^)(?=[A-Z])", "-", cls.__name__).lower()
        cls.title = title
        cls.retryable = retryable
        FederationError.by_name[cls.name] = cls

    def __init__(self, detail: str, **values: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.values = values


class NotParseable(FederationError, title="The request cannot be parsed"): ...


class Unauthenticated(FederationError, title="A valid token is needed"): ...


class Forbidden(FederationError, title="This token may not do that"): ...


class NotFound(FederationError, title="There is no such thing"): ...


class UnknownLearner(NotFound, title="There is no such learner"): ...


class UnknownTask(NotFound, title="There is no such task"): ...


class UnknownRun(NotFound, title="There is no such run"): ...


class UnknownModel(NotFound, title="There is no such model"): ...


class MethodNotAllowed(FederationError, title="This path does not take that method"): ...


class Misdirected(FederationError, title="The controller does not answer under that name"): ...


class PreconditionFailed(FederationError, title="What is there is not what the condition names"): ...


class HeadTooLarge(FederationError, title="The head of the request is larger than the limit"): ...


class HeadTooSlow(FederationError, title="The head of the request did not arrive in time"): ...


class BodyTooSlow(FederationError, title="The body did not arrive in time", retryable=True): ...


class Conflict(FederationError, title="This conflicts with the federation's state"): ...


class NameTaken(Conflict, title="Another learner has this name"): ...


class RunActive(Conflict, title="A run is active"): ...


class NotManual(Conflict, title="The run's rounds advance by themselves"): ...


class UploadOffset(Conflict, title="The part does not begin where the last one ended"): ...


class RoundClosed(Conflict, title="The round has closed"): ...


class DifferentBody(Conflict, title="Answered before with another body"): ...


class Gone(FederationError, title="This is over"): ...


class TaskVoid(Gone, title="The task is no longer wanted"): ...


class FederationOver(Gone, title="The federation is over"): ...


class TooLarge(FederationError, title="The body is larger than the limit"): ...


class UnsupportedMediaType(FederationError, title="This path takes another media type"): ...


class RangeNotSatisfiable(FederationError, title="The range lies outside the document"): ...


class InvalidRequest(FederationError, title="The request has wrong keys or values"): ...


class InvalidConfig(InvalidRequest, title="The configuration cannot work"): ...


class InvalidUpdate(FederationError, title="The update is not acceptable"): ...


class MalformedUpdate(InvalidUpdate, title="The body is not a weights document"): ...


class DigestMismatch(InvalidUpdate, title="The bytes are not those that the digest names"): ...


class ShapeMismatch(InvalidUpdate, title="The tensors are not those of the round's model"): ...


class NonFiniteUpdate(InvalidUpdate, title="A tensor holds NaN or infinity"): ...


class InvalidWeight(InvalidUpdate, title="A number that counts is missing in the update or out of range"): ...


class Unavailable(FederationError, title="The controller cannot answer now", retryable=True): ...


class Busy(Unavailable, title="The controller is busy", retryable=True): ...


class StoreUnavailable(Unavailable, title="The model store does not answer", retryable=True): ...


class DiskFull(FederationError, title="The controller's disk is full", retryable=True): ...


class AggregationFailed(FederationError, title="The updates could not be combined"): ...


class Unreachable(FederationError, title="The controller does not answer", retryable=True): ...


class UnexpectedAnswer(FederationError, title="An answer that is not of this contract", retryable=True): ...


class NotOfThisContract(UnexpectedAnswer, title="This is not a controller's answer"): ...


class ProxyUnavailable(UnexpectedAnswer, title="A proxy cannot pass this on now", retryable=True): ...


class ProxyRefused(UnexpectedAnswer, title="A proxy in between refuses this"): ...
