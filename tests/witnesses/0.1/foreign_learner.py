"""A learner that knows nothing of this project: written from /openapi.json alone, with urllib, msgpack and numpy.

    foreign_learner.py CONTROLLER NAME DIGITS.npz FIRST_ROW LAST_ROW [ENROLMENT_TOKEN_FILE]

What the participants agreed on beforehand, the perceptron 64-64-10 and its tensors' names, is in TENSORS.
"""

import json
import struct
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import msgpack
import numpy as np

TENSORS = {"hidden.weight": (64, 64), "hidden.bias": (64,), "output.weight": (64, 10), "output.bias": (10,)}
MSGPACK = "application/vnd.msgpack"
PATIENCE_S = 60


class Api:
    """The operations of an OpenAPI document, by their ids."""

    def __init__(self, base, token):
        self.token = token
        self.origin = urllib.parse.urlsplit(base)[:2]
        where = f"{base}/openapi.json"
        document = json.loads(self.send("GET", where)[1])
        root = urllib.parse.urljoin(where, document["servers"][0]["url"]).rstrip("/")
        self.operations = {
            operation["operationId"]: (method.upper(), root + path)
            for path, methods in document["paths"].items()
            for method, operation in methods.items()
        }

    def call(self, name, body=None, query="", **ids):
        """Status and body of the answer; `body` is sent as JSON."""
        method, url = self.operations[name]
        data = None if body is None else json.dumps(body).encode()
        return self.send(method, url.format(**ids) + query, data, "application/json")

    def send(self, method, url, data=None, media=None):
        """Status and body of the answer to a request that is repeated while that may help."""
        headers = {"Content-Type": media} if data is not None else {}
        if self.token and urllib.parse.urlsplit(url)[:2] == self.origin:
            headers["Authorization"] = f"Bearer {self.token}"
        until = time.monotonic() + PATIENCE_S
        while True:
            request = urllib.request.Request(url, data, headers, method=method)
            pause = 1.0
            try:
                with urllib.request.urlopen(request, timeout=50) as answer:
                    return answer.status, answer.read()
            except urllib.error.HTTPError as refused:
                body = refused.read()
                if time.monotonic() > until or not json.loads(body).get("retryable"):
                    return refused.code, body
                pause = float(refused.headers.get("Retry-After", pause))
            except OSError:
                if time.monotonic() > until:
                    raise
            time.sleep(pause)


class Perceptron:
    """The model, and this learner's digits."""

    def __init__(self, path, first, last):
        with np.load(path) as packed:
            self.x = packed["images"].reshape(-1, 64)[first:last].astype("f4") / 16
            self.y = packed["labels"][first:last].astype(int)
        draw = np.random.default_rng(first)
        self.initial = [
            (draw.normal(0, 0.18, shape) if len(shape) == 2 else np.zeros(shape)).astype("f4")
            for shape in TENSORS.values()
        ]

    def forward(self, w):
        """The hidden layer and the probabilities, for all rows."""
        hidden = np.maximum(self.x @ w[0] + w[1], 0)
        logits = hidden @ w[2] + w[3]
        powers = np.exp(logits - logits.max(1, keepdims=True))
        return hidden, powers / powers.sum(1, keepdims=True)

    def step(self, w, rate):
        """One step of gradient descent over all rows; the loss before it."""
        hidden, p = self.forward(w)
        loss = -np.log(p[np.arange(len(self.y)), self.y] + 1e-9).mean()
        p[np.arange(len(self.y)), self.y] -= 1
        p /= len(self.y)
        back = (p @ w[2].T) * (hidden > 0)
        for tensor, gradient in zip(w, (self.x.T @ back, back.sum(0), hidden.T @ p, p.sum(0)), strict=True):
            tensor -= rate * gradient
        return float(loss)

    def score(self, w):
        """Accuracy and loss."""
        _, p = self.forward(w)
        right = p[np.arange(len(self.y)), self.y]
        return {"accuracy": float((p.argmax(1) == self.y).mean()), "loss": float(-np.log(right + 1e-9).mean())}


def unpack(document):
    """The arrays of a weights document that is of the agreed model."""
    tensors = msgpack.unpackb(document)["tensors"]
    if [(one["name"], tuple(one["shape"]), one["dtype"]) for one in tensors] != [
        (name, shape, "float32") for name, shape in TENSORS.items()
    ]:
        raise ValueError("this is not the model that was agreed on")
    return [np.array(struct.unpack(f"<{len(t['data']) // 4}f", t["data"]), "f4").reshape(t["shape"]) for t in tensors]


def pack(arrays, **more):
    """A weights document."""
    tensors = [
        {"name": name, "dtype": "float32", "shape": list(shape), "data": array.astype("<f4").tobytes()}
        for (name, shape), array in zip(TENSORS.items(), arrays, strict=True)
    ]
    return msgpack.packb({**more, "tensors": tensors})


def do(api, me, where, task, model, kept):
    """One task: the result's body and its media type."""
    config = task["config"]
    if task["kind"] == "init":
        return pack(model.initial), MSGPACK
    digest = task["model"]["digest"]
    if digest not in kept:
        status, document = api.send("GET", urllib.parse.urljoin(where, task["model"]["url"]))
        if status != 200:
            raise ValueError(f"the model was not to be had: {document.decode()}")
        kept.clear()
        kept[digest] = document
    arrays = unpack(kept[digest])
    if task["kind"] == "evaluate":
        scores = {"metrics": model.score(arrays), "metadata": {"num_evaluation_examples": len(model.y)}}
        return json.dumps(scores).encode(), "application/json"
    for epoch in range(1, 1 + config.get("epochs", 20)):
        loss = model.step(arrays, config.get("learning_rate", 0.5))
        beat = {"task_id": task["id"], "progress": {"epoch": epoch, "loss": loss}}
        if api.call("heartbeat", beat, learner_id=me)[0] in (409, 410):
            raise ValueError("the task is no longer wanted")
    return pack(arrays, metrics={"loss": loss}, metadata={"num_training_examples": len(model.y)}), MSGPACK


def main(base, name, digits, first, last, token_file=None):
    """Enrol, work until the federation is over, leave."""
    api = Api(base, Path(token_file).read_text().strip() if token_file else None)
    model, kept = Perceptron(digits, int(first), int(last)), {}
    status, body = api.call("join", {"name": name, "num_training_examples": len(model.y)})
    if status != 201:
        raise SystemExit(body.decode())
    me, api.token = json.loads(body)["id"], json.loads(body)["token"]
    while True:
        status, body = api.call("task", query="?wait=30", learner_id=me)
        if status == 204:
            continue
        if status == 410:
            break
        if status != 200:
            raise SystemExit(body.decode())
        task = json.loads(body)
        print(f"round {task['round']}: {task['kind']}", flush=True)
        where = api.operations["task"][1].format(learner_id=me)
        if task["kind"] not in ("init", "train", "evaluate"):
            api.call("post_failure", {"error": "unsupported-task"}, task_id=task["id"])
            continue
        try:
            result, media = do(api, me, where, task, model, kept)
        except ValueError as error:
            api.call("post_failure", {"error": str(error)}, task_id=task["id"])
            continue
        status, body = api.send("PUT", urllib.parse.urljoin(where, task["result"]["url"]), result, media)
        print(status, body.decode(), flush=True)
    api.call("leave", learner_id=me)


main(*sys.argv[1:])
