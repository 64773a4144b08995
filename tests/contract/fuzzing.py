"""What schemathesis is told beside the document: ids that exist, tokens of every role, and weights documents.

It is loaded by schemathesis (SCHEMATHESIS_HOOKS) and finds the federation, which is at work, in METIS_FUZZED.
"""

import hashlib
import itertools
import json
import os
import urllib.error
import urllib.request

import msgpack
import schemathesis
from hypothesis import strategies as st

FEDERATION = json.loads(os.environ["METIS_FUZZED"])  # url, tokens (the operator's first), digest
LOOK_AGAIN = 25  # calls after which the learner, or its task, may be gone
calls = itertools.count()
ids = {"run_id": "latest", "digest": FEDERATION["digest"]}
own: list[str] = []  # the learner's token

scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=9)
told = st.dictionaries(st.sampled_from(["num_training_examples", "loss"]) | st.text(max_size=9), scalars, max_size=3)
good = {"name": "w", "dtype": "float32", "shape": [2], "data": b"\x00\x00\x80?\x00\x00\x00@"}
keys = st.sampled_from([*good, "encoding", "delta", "scale", "indices", "trainable", "pad"])
odd = st.dictionaries(keys, scalars | st.binary(max_size=9) | st.lists(st.integers(-1, 3), max_size=3), max_size=3)
tensors = st.lists(odd.map(lambda changed: {**good, **changed}), max_size=2) | st.just([good])
documents = st.fixed_dictionaries({"tensors": tensors}, optional={"metadata": told, "metrics": told, "extra": told})
weights = documents.map(lambda value: msgpack.packb(value, unicode_errors="replace")) | st.binary(max_size=40)
for media in ("application/octet-stream", "application/vnd.msgpack", "application/partial-upload"):
    schemathesis.openapi.media_type(media, weights)


def bearer(token):
    return {"Authorization": f"Bearer {token}"} if token else {}


def ask(method, path, body=None):
    """The JSON of an answer to the operator, None for none and for a refusal."""
    headers = {**bearer(FEDERATION["tokens"][0]), "Content-Type": "application/json"}
    request = urllib.request.Request(FEDERATION["url"] + path, body, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.loads(answer.read() or b"null")
    except urllib.error.HTTPError:
        return None


def look():
    """Who is there, and what it has to do; nobody: another one enrols."""
    where = f"/v1/learners/{ids.get('learner_id', 0)}"
    if ask("GET", where) is None and (learner := ask("POST", "/v1/learners", b"{}")):
        ids["learner_id"], own[:] = learner["id"], [learner["token"]]
    elif task := ask("GET", f"{where}/task?wait=0"):
        ids["task_id"] = task["id"]


@schemathesis.hook
def before_call(context, case, kwargs):
    """Most calls name what exists, under the token that may do it."""
    number = next(calls)
    if number % LOOK_AGAIN < 2:
        look()
    if number % 4:
        case.path_parameters = {name: ids.get(name, value) for name, value in (case.path_parameters or {}).items()}
        if isinstance(case.body, bytes) and "digest" in case.path_parameters and case.method == "PUT":
            case.path_parameters["digest"] = f"sha256-{hashlib.sha256(case.body).hexdigest()}"
    if case.query and isinstance(case.query.get("wait"), int | float):
        case.query["wait"] = 0
    for name in [name for name in case.headers or {} if name.lower() == "authorization"]:
        del case.headers[name]
    tokens = [*FEDERATION["tokens"], *own]
    case.headers.update(bearer(tokens[0 if number % 3 else number // 3 % len(tokens)]))
