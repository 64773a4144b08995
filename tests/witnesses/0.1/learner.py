"""The learners of the state folders: every value follows from a learner's number and the round alone.

As an agent: `metis-learner --learner learner:made`, with its number in WITNESS_NUMBER; from round 2 on all but the
first wait with their training while the file named by WITNESS_HOLD is there. Over bare HTTP: `join`, `next_task`,
`answer`, `send`, `go_on`.

Everything is computed number by number, or summed exactly, so that it is the same on every machine.
"""

import json
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
import msgpack
import numpy as np

NAMES = ("body", "head", "fine", "seen")
TRAINABLE = (True, True, True, False)
CODED = 1024  # bytes from which on a tensor is worth coding
MSGPACK = "application/vnd.msgpack"
LIMIT_S = 40.0  # of a run that goes on
OVER = ("completed", "stopped", "failed")


# ---- what is learnt
def initial():
    """The same weights at every learner: float32, float16, float64, and a counter that no optimizer may move."""
    body = ((np.arange(300) * 37 % 101 - 50) / 64).astype("<f4").reshape(20, 15)
    return [body, (np.arange(5) / 8).astype("<f2"), np.array([0.5, -0.25, 2.0]), np.array(7, "<i8")]


def trained(weights, number, round_, control=None):
    """Weights after training, and the difference of the learner's control where there is one."""
    step = number * round_ / 64
    new = [w * w.dtype.type(0.5) + w.dtype.type(step) if w.dtype.kind == "f" else w + number for w in weights]
    new = [np.asarray(one, w.dtype) for one, w in zip(new, weights, strict=True)]
    if control is None:
        return new, None
    new = [*(a - a.dtype.type(0.25) * c for a, c in zip(new, control, strict=False)), *new[len(control) :]]
    return new, [c.dtype.type(step) - c.dtype.type(0.5) * c for c in control]


def told_of(number):
    """What an update says of its training: metrics and metadata."""
    times = {"processing_ms_per_batch": 10.0 * number, "processing_ms_per_epoch": 40.0 * number}
    return {"loss": number / 8}, {"num_training_examples": number, "num_completed_batches": number, **times}


def scores(weights):
    """A score of the weights, summed exactly."""
    floats = [float(one) for w in weights if w.dtype.kind == "f" for one in w.reshape(-1)]
    return {"accuracy": 1 / (1 + math.fsum(map(abs, floats)) / len(floats))}


class Learner:
    """The four methods that an agent calls."""

    names, trainable = NAMES, TRAINABLE

    def __init__(self):
        self.number = int(os.environ["WITNESS_NUMBER"])
        self.hold = os.environ.get("WITNESS_HOLD") if self.number > 1 else None

    def get_weights(self):
        """See initial."""
        return initial()

    def set_weights(self, weights):
        """Nothing is kept."""

    def train(self, weights, config):
        """See trained."""
        until = time.monotonic() + LIMIT_S
        while self.hold and config["round"] > 1 and Path(self.hold).exists() and time.monotonic() < until:
            time.sleep(0.02)
        new, _ = trained(weights, self.number, config["round"])
        return (new, *told_of(self.number))

    def evaluate(self, weights, config):
        """See scores."""
        return {**scores(weights), "num_evaluation_examples": self.number}


made = Learner


# ---- over bare HTTP
@dataclass
class Member:
    """A learner of a federation, as it knows itself."""

    name: str
    number: int
    id: str
    token: str

    @property
    def headers(self):
        """Who calls."""
        return {"Authorization": f"Bearer {self.token}"}


def join(http, name, number):
    """Enrol."""
    who = {"name": name, "num_training_examples": number, "labels": {"site": f"s{number % 2}"}}
    given = {**who, "kinds": ["init", "train", "evaluate"], "encodings": ["none", "bf16", "int8"]}
    told = http.post("/v1/learners", json=given, headers={"Idempotency-Key": f"enrolment-of-{name}"})
    return Member(name, number, told.raise_for_status().json()["id"], told.json()["token"])


def next_task(http, member, wait=0.0):
    """Its open task, or None."""
    told = http.get(f"/v1/learners/{member.id}/task", params={"wait": wait}, headers=member.headers)
    return told.raise_for_status().json() if told.status_code == 200 else None


def fetched(http, member, reference):
    """A weights document that a task names: tensors as they are written, and as arrays."""
    url = httpx.URL(f"{http.base_url}/v1/learners/{member.id}/task").join(reference["url"])
    body = http.get(url, headers=member.headers).raise_for_status().content
    tensors = msgpack.unpackb(body)["tensors"]
    return tensors, [_array(one) for one in tensors]


def answer(http, member, task):
    """What it answers to a task: the media type and the body."""
    number = member.number
    if task["kind"] == "init":
        return MSGPACK, document(NAMES, initial(), metadata={})
    tensors, weights = fetched(http, member, task["model"])
    if task["kind"] == "evaluate":
        said = {"metrics": scores(weights), "metadata": {"num_evaluation_examples": number}}
        return "application/json", json.dumps(said).encode()
    control, more = None, {}
    if beside := task["inputs"].get("control"):
        group, control = fetched(http, member, beside)
    new, change = trained(weights, number, task["config"]["round"], control)
    if change is not None:
        more["extra"] = {"control": _tensors([one["name"] for one in group], change)}
    metrics, metadata = told_of(number)
    base = weights if (task["encoding"] or {}).get("up") == "int8" else None
    names = [one["name"] for one in tensors]
    return MSGPACK, document(names, new, base, metrics=metrics, metadata=metadata, **more)


def send(http, member, task_id, media, body):
    """Send a result: the status and what was said, of a problem its type."""
    headers = {**member.headers, "Content-Type": media}
    told = http.put(f"/v1/tasks/{task_id}/result", content=body, headers=headers)
    return told.status_code, told.json() if told.is_success else told.json()["type"]


def turn(http, member, wait=0.0):
    """Do its open task, if there is one; the task's kind."""
    if (task := next_task(http, member, wait)) is None:
        return None
    status, said = send(http, member, task["id"], *answer(http, member, task))
    if status != 201:
        raise ValueError(f"{task['kind']} of {member.name}: {status} {said}")
    settled(http)
    return task["kind"]


def settled(http):
    """Wait until no model is being made: then what is done next has one outcome only. The newest run."""
    until = time.monotonic() + LIMIT_S
    while time.monotonic() < until:
        run = http.get("/v1/runs/latest").raise_for_status().json()
        rounds = http.get("/v1/runs/latest/rounds").raise_for_status().json()
        if run["state"] != "aggregating" and not [one for one in rounds if one["state"] == "aggregating"]:
            return run
        time.sleep(0.01)
    raise TimeoutError("a model is still being made")


def go_on(http, members):
    """All of them, each in its turn, until the newest run is over; the run. An operator starts the rounds of a run that
    is advanced by hand."""
    until = time.monotonic() + LIMIT_S
    while time.monotonic() < until:
        for member in sorted(members, key=lambda one: one.name):
            turn(http, member)
        if (run := settled(http))["state"] in OVER:
            return run
        if run["state"] == "waiting" and run["config"]["advance"] == "manual":
            http.post("/v1/runs/latest/rounds").raise_for_status()
    raise TimeoutError(f"the run is not over: {run}")


# ---- documents
def _array(tensor):
    data, dtype, shape = tensor["data"], np.dtype(tensor["dtype"]).newbyteorder("<"), tensor["shape"]
    if tensor.get("encoding") == "bf16":
        return (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4").astype(dtype).reshape(shape)
    if tensor.get("encoding", "none") != "none":
        raise ValueError(f"no model is in the form {tensor['encoding']}")
    return np.frombuffer(data, dtype).reshape(shape)


def document(names, arrays, base=None, **more):
    return msgpack.packb({"tensors": _tensors(names, arrays, base), **more})


def _tensors(names, arrays, base=None):
    """Tensors by name; where `base` is given, large ones as int8 differences from it."""
    made = []
    for index, (name, array) in enumerate(zip(names, arrays, strict=True)):
        head = {"name": name, "dtype": array.dtype.name, "shape": list(array.shape)}
        head |= {} if TRAINABLE[NAMES.index(name)] else {"trainable": False}
        if base is not None and array.nbytes >= CODED:
            difference = (array - base[index]).astype("<f4")
            scale = np.float32(np.abs(difference).max() / np.float32(127)) or np.float32(1)
            data = np.rint(difference / scale).astype("i1").tobytes()
            made.append({**head, "encoding": "int8", "delta": True, "scale": float(scale), "data": data})
        else:
            made.append({**head, "data": array.astype(array.dtype.newbyteorder("<")).tobytes()})
    return made
