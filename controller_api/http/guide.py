"""What `/docs` tells a stranger before the list of calls: how to write a learner, the weights document, every error."""

from __future__ import annotations

from services import errors as e
from services.weights import DTYPES, MEDIA_TYPE

from ..problems import status_of

# Raised by clients, or told as the reason of a run; no call answers with them.
NOT_ANSWERED = (e.Unreachable, e.UnexpectedAnswer, e.AggregationFailed)
GROUPS = (e.Conflict, e.Gone, e.InvalidUpdate)  # stand for the narrower ones below them

LEARNER = """\
One model is trained on data that stays where it is. **Learners** make outbound calls only; weights travel as
MessagePack documents (`MEDIA_TYPE`), everything else is JSON. Every error is a problem document (RFC 9457).

### A learner in seven calls
1. `POST /v1/learners` with `{"name": "mine"}` under the enrolment token (none is needed when the controller runs open).
   Keep `id` and `token`; send the token from now on: `Authorization: Bearer <token>`.
2. `GET /v1/learners/<id>/task?wait=30`: 204 means that there is none yet, ask again at once. Wait longer for the answer
   than `wait`. A task stays on offer until it is done, so a lost answer loses nothing.
3. Its `kind` says what to do. `init`: send your initial weights. `train`: get the model, train it on your data, send
   the new weights. `evaluate`: get the model, send its scores. Anything else: `POST /v1/tasks/<task>/failure` with
   `{"error": "unsupported-task"}`. What fails is told there too: why, in one line, and apart, if you like, its
   `traceback`. A task's `config` holds what the operator wrote for `train` or `evaluate` (such as `epochs`), and
   `round`. One learner, drawn at random, gets the `init`: all learners agree beforehand on the tensors' names, shapes
   and dtypes. One that has no weights to begin with enrols with `"kinds": ["train", "evaluate"]`.
4. `GET` the model at `task.model.url`, resolved against the URL of the task call (RFC 3986; here it is relative). Keep
   it by its digest: the model that you evaluate is the one that you train next.
5. `PUT` the result to `task.result.url`, resolved in the same way: for `init` and `train` a weights document, for
   `evaluate` JSON `{"metrics": {"accuracy": 0.9}, "metadata": {"num_evaluation_examples": 100}}`. Repeating it is
   safe: the same body gets the same receipt. 409 and 410 mean that it is no longer wanted: go to 2.
6. While you work longer than `task.heartbeat_s`: `POST /v1/learners/<id>/heartbeat` with `{"task_id": "…"}` at least
   that often; 409 or 410 mean that you may drop the task.
7. `DELETE /v1/learners/<id>` when you leave. A poll that answers 410 `federation-over` means that all is done.

No answer, or one with `"retryable": true`: wait (`Retry-After` says how long, if it is there) and make the same call
again. 401 after you were enrolled: the controller does not know you any more, go to 1. Send your token only to the
controller's own origin.
"""
WEIGHTS = """\
### The weights document
A MessagePack map, readable by any MessagePack library:

```
{"metrics":  {"loss": 0.3},                       # updates only; finite numbers or null
 "metadata": {"num_training_examples": 600},      # updates only; what the run's scaling_factor needs
 "tensors":  [{"name": "0", "dtype": "float32", "shape": [2, 3], "data": <24 bytes>}, …]}
```
`data` is of MessagePack's type bin and holds the tensor's memory: little-endian, C order (the last index moves
fastest), as many bytes as `shape` and `dtype` say; the `shape` of a single number is `[]`. `dtype` is one of DTYPES.
An update has the same tensors as the model that it was trained from: names, order, shapes, dtypes. All values are
finite. Optional: `"trainable": false` on a tensor (buffers such as BatchNorm's statistics), `"pad"` (zeros that align
`data`; readers ignore it), and at the document's end `"extra"`: a map of name to tensors outside the model, one of the
form of each of the task's `inputs`. With `scaling_factor` `NumTrainingExamples` (the default) `metadata` needs
`num_training_examples`; with `NumCompletedBatches`, `num_completed_batches`.

```python
tensor = {"name": "0", "dtype": "float32", "shape": [2, 3], "data": struct.pack("<6f", *values)}
body = msgpack.packb({"metadata": {"num_training_examples": 600}, "tensors": [tensor]})
tensors = msgpack.unpackb(model)["tensors"]
```
To move less, enrol with `"encodings": ["none", "bf16", "int8", "topk"]` (what you can read and write). If the run asks
for one of them, models come with coded tensors (`"encoding"` in them) and `task.encoding` names the form in which the
update may be sent: large float tensors as differences to the model as you got it (`"delta": true`). A plain tensor is
always taken, and a learner that names nothing sees plain tensors only. docs/protocol.md has the bytes and the errors.
"""
ERRORS = """\
### Errors
`type` is `/errors/<name>`; `detail` says in words what was wrong; more members hold the values that matter, such as
`limit`, `expected`, `got`. What is wrong is judged in this order: 401, 403, 404, 405, 413, 415, 409 and 410, 400 and
422.

| name | status | later? | |
|---|---|---|---|
"""


def introduction() -> str:
    """All of it, in Markdown."""
    learner = LEARNER.replace("MEDIA_TYPE", MEDIA_TYPE)
    weights = WEIGHTS.replace("DTYPES", ", ".join(DTYPES))
    return f"{learner}\n{weights}\n{ERRORS}{''.join(_row(kind) for kind in answered())}"


def answered() -> list[type[e.FederationError]]:
    """The errors that a call may answer with, by status."""
    kinds = [
        kind for kind in e.FederationError.by_name.values() if not issubclass(kind, NOT_ANSWERED) and kind not in GROUPS
    ]
    return sorted(kinds, key=status_of)


def _row(kind: type[e.FederationError]) -> str:
    later = "yes" if kind.retryable else ""
    return f"| `{kind.name}` | {status_of(kind)} | {later} | {kind.title} |\n"
