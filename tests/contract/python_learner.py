"""A learner on the client that openapi-python-client made (the package `client` in the working folder).

python_learner.py CONTROLLER ENROLMENT_TOKEN
"""

import io
import struct
import sys

import msgpack
from client import AuthenticatedClient
from client.api.learners import join, leave
from client.api.models import get_model
from client.api.tasks import put_result, put_scores, task
from client.models import EvaluationResult, JoinRequest
from client.types import File


def weights(values, **more):
    tensor = {"name": "w", "dtype": "float32", "shape": [2], "data": struct.pack("<2f", *values)}
    return File(io.BytesIO(msgpack.packb({**more, "tensors": [tensor]})))


def main(url, token):
    """Enrol, do the tasks until one was to evaluate, leave."""
    enrolled = join.sync(client=AuthenticatedClient(url, token), body=JoinRequest(name="generated"))
    api, kind = AuthenticatedClient(url, enrolled.token), None
    while kind != "evaluate":
        answer = task.sync_detailed(enrolled.id, client=api, wait=5)
        if answer.status_code == 204:
            continue
        given, kind, values = answer.parsed, answer.parsed.kind, [0.0, 0.0]
        if kind != "init":
            model = get_model.sync_detailed(given.model.digest, client=api).content
            values = list(struct.unpack("<2f", msgpack.unpackb(model)["tensors"][0]["data"]))
        if kind == "evaluate":
            scores = EvaluationResult.from_dict({"metrics": {"first": values[0]}})
            receipt = put_scores.sync(given.id, client=api, body=scores)
        elif kind == "train":
            update = weights([value + 1.5 for value in values], metadata={"num_training_examples": 10})
            receipt = put_result.sync(given.id, client=api, body=update)
        else:
            receipt = put_result.sync(given.id, client=api, body=weights(values))
        print(kind, receipt.kind, receipt.round_, flush=True)
    assert leave.sync_detailed(enrolled.id, client=api).status_code == 204


main(*sys.argv[1:])
