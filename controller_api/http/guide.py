"""What `/docs` tells a stranger before the list of calls: how to write a learner, the weights document, what a run may
ask for, every error."""

from __future__ import annotations

from services import errors as e
from services.weights import DTYPES, MEDIA_TYPE

from ..problems import status_of

# Raised by clients, or told as the reason of a run; no call answers with them.
NOT_ANSWERED = (e.Unreachable, e.UnexpectedAnswer, e.AggregationFailed)
GROUPS = (e.Conflict, e.Gone)  # stand for the narrower ones below them

LEARNER = """\
One model is trained on data that stays where it is. **Learners** make outbound calls only; weights travel as
MessagePack documents (`MEDIA_TYPE`), everything else is JSON. Every error is a problem document (RFC 9457).

### A learner in seven calls
1. `POST /v1/learners` with `{"name": "mine"}` under the enrolment token (none is needed when the controller runs open).
   Keep `id` and `token`; send the token from now on: `Authorization: Bearer <token>`.
2. `GET /v1/learners/<id>/task?wait=30`: 204 means that there is none yet, ask again at once. Wait longer for the answer
   than `wait`, and ask for at most 50 behind a proxy: most give up after 60 s. A task stays on offer until it is done,
   so a lost answer loses nothing.
3. Its `kind` says what to do. `init`: send your initial weights. `train`: get the model, train it on your data, send
   the new weights. `evaluate`: get the model, send its scores. Anything else: `POST /v1/tasks/<task>/failure` with
   `{"error": "unsupported-task"}`. What fails is told there too: why, in one line, and apart, if you like, its
   `traceback`. A task's `config` holds what the operator wrote for `train` or `evaluate` (such as `epochs`),
   `round`, and `seed`, a whole number for draws of your own. One learner, drawn at random, gets the `init`: all
   learners agree beforehand on the tensors' names, shapes and dtypes. One that has no weights to begin with enrols
   with `"kinds": ["train", "evaluate"]`.
4. `GET` the model at `task.model.url`, resolved against the URL of the task call (RFC 3986; here it is relative). Keep
   it by its digest: the model that you evaluate is the one that you train next.
5. `PUT` the result to `task.result.url`, resolved in the same way: for `init` and `train` a weights document, to
   `/v1/tasks/<task>/result`; for `evaluate` JSON, to `/v1/tasks/<task>/scores`:
   `{"metrics": {"accuracy": 0.9}, "metadata": {"num_evaluation_examples": 100}}`. Repeating it is safe: the same body
   gets the same receipt. 409 and 410 mean that it is no longer wanted: go to 2.
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
form of each of the task's `inputs`.

A community model is made in float64, and every tensor keeps its dtype: means of whole numbers are rounded half to even,
a mean of `bool` is what most of the weight says, and false when they tie.

```python
tensor = {"name": "0", "dtype": "float32", "shape": [2, 3], "data": struct.pack("<6f", *values)}
body = msgpack.packb({"metadata": {"num_training_examples": 600}, "tensors": [tensor]})
tensors = msgpack.unpackb(model)["tensors"]
```
"""
ASKED = """\
### What a run may ask for
A learner does not see the run's configuration. Agree beforehand, or tell whatever you can: what is not asked for is
taken, too. An update that lacks what is asked for is 422 `invalid-weight`, and `key` names it.

| the run has | its updates tell |
|---|---|
| `scaling_factor` `NumTrainingExamples` (the default) | `num_training_examples` in `metadata`, from 0 to 2^53 |
| `scaling_factor` `NumCompletedBatches` | `num_completed_batches` in `metadata` |
| `scaling_factor` `NumParticipants` | nothing |
| `aggregation_rule` `FedNova` | `num_completed_batches` in `metadata`, above 0 |
| `aggregation_rule` `QFedAvg` | `loss_before_training` in `metrics`, at least 0 |
| `scheduler` `SemiSynchronous` | `processing_ms_per_batch`, `processing_ms_per_epoch` in `metadata`, above 0 |
| `algorithm` `SCAFFOLD` | `control` in `extra`, when the task's `inputs` name it |

With `SemiSynchronous` the task's `config` has `num_local_updates`, the steps to train, from the second round on.

**Control variates** (`SCAFFOLD`). `inputs` of a train task names `control`, a Reference to a weights document c that
has the model's trainable float tensors: same names, order, dtypes, shapes. Keep a control c_i of your own of that form,
zeros when the run begins. Add c - c_i to each gradient. After K steps of rate r from the model x to y, send
(x - y) / (K * r) - c as `"extra": {"control": [tensors]}`, and add it to c_i once the update is taken. An update
without it, or with an `extra` that nobody asked for, is 422 `malformed-update`.

### Fewer bytes
To move less, enrol with `"encodings": ["none", "bf16", "int8", "topk"]` (what you can read and write). If the run asks
for one of them, models come with coded tensors and `task.encoding` names the form in which the update may be sent. A
plain tensor is always taken, and a learner that names nothing sees plain tensors only. A coded tensor has `name`,
`dtype`, `shape` and `trainable` of the one that it stands for, and

| `encoding` | `data`, little-endian, C order | further keys | read as |
|---|---|---|---|
| `bf16` | 2 bytes a number, the upper half of a float32 | | the number |
| `int8` | 1 signed byte q a number | `scale`, the largest magnitude / 127 as a float32, 1 for zeros | q * scale |
| `topk` | numbers, float64 for float64, else float32 | `indices` of them, a bin of uint32, ascending | 0 elsewhere |

In an update each is a difference, with `"delta": true`: what was trained minus the model as you got it, decoded. A
difference in the tensor's own dtype has `delta` without `encoding`. Only floats are coded; sums are made in float32
(float64 for float64) and rounded to the tensor's dtype. The [protocol](docs/protocol#encodings) has the errors, a
reader and a writer.

### Webhooks
A learner that can be reached may enrol with a `callback_url`. When a task waits for it, and when the federation is
over, it is sent a signed POST, described under `webhooks` of this document, that says "poll now". The answer to the
enrolment holds the key, `webhook_secret`. One that is lost is no loss if you also poll now and then.
"""
ERRORS = """\
### Errors
`type` is `/errors/<name>`; `detail` says in words what was wrong; more members hold the values that matter, such as
`limit`, `expected`, `got`. The first thing that is wrong is told, in this order:

1. 404 `not-found`: there is no such path. An id that cannot be one (it does not match the pattern of its parameter)
   makes a path that does not exist;
2. 401 no valid token; 403 a role that may not do this, or another learner's path; 405 another method;
3. 404 there is no such learner, task or run; 403 the task of another learner;
4. 400 a `Content-Length` that is no number; 413 a body declared too long; 415 another media type;
5. 409 and 410: too late, taken, over. Only a JSON body that cannot be read is told before;
6. 400, 408, 413, 422: what the body turns out to be.

HEAD is answered wherever GET is. Any call may be answered 408 `head-too-slow` or 431 `head-too-large`.

| name | status | later? | |
|---|---|---|---|
"""


def introduction() -> str:
    """All of it, in Markdown."""
    learner = LEARNER.replace("MEDIA_TYPE", MEDIA_TYPE)
    weights = WEIGHTS.replace("DTYPES", ", ".join(DTYPES))
    return f"{learner}\n{weights}\n{ASKED}\n{ERRORS}{''.join(_row(kind) for kind in answered())}"


def answered() -> list[type[e.FederationError]]:
    """The errors that a call may answer with, by status."""
    kinds = [
        kind for kind in e.FederationError.by_name.values() if not issubclass(kind, NOT_ANSWERED) and kind not in GROUPS
    ]
    return sorted(kinds, key=status_of)


def _row(kind: type[e.FederationError]) -> str:
    later = "yes" if kind.retryable else ""
    return f"| `{kind.name}` | {status_of(kind)} | {later} | {kind.title} |\n"
