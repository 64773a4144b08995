"""The numbers of the curl learner, in plain Python and the package msgpack.

The model is the perceptron 64-64-10 of learner_agent/digits.py. This learner trains its output layer by stochastic
gradient descent on 200 of the repository's handwritten digits; the hidden layer goes back as it came.

    weights.py init                   the initial weights, as a weights document
    weights.py train MODEL TASK       the model trained by the parameters in the task, as a weights document
    weights.py evaluate MODEL TASK    the model's scores, as JSON
"""

import array
import json
import math
import operator
import os
import random
import sys
import zipfile
from pathlib import Path

import msgpack

DATA = Path(__file__).parents[2] / "learner_agent" / "digits.npz"
SHAPES = {"hidden.weight": [64, 64], "hidden.bias": [64], "output.weight": [64, 10], "output.bias": [10]}
ROWS, TEST_ROWS = 200, 100


def rows() -> list[tuple[list[float], int]]:
    """Pixels from 0 to 1 and the digit; which rows are this learner's follows from SEED (0)."""
    with zipfile.ZipFile(DATA) as packed:  # an .npz is a zip of .npy files, whose header tells its own length
        raw = [packed.read(f"{name}.npy") for name in ("images", "labels")]
    images, labels = (data[10 + int.from_bytes(data[8:10], "little") :] for data in raw)
    mine = random.Random(int(os.environ.get("SEED", "0"))).sample(range(len(labels)), ROWS + TEST_ROWS)
    return [([pixel / 16 for pixel in images[64 * i : 64 * (i + 1)]], labels[i]) for i in mine]


def document(tensors: list[array.array], **more: dict) -> bytes:
    """A weights document: each tensor's memory in little-endian order."""
    described = [
        {"name": name, "dtype": "float32", "shape": shape, "data": swapped(values).tobytes()}
        for (name, shape), values in zip(SHAPES.items(), tensors, strict=True)
    ]
    return msgpack.packb({**more, "tensors": described})


def tensors_of(path: str) -> list[array.array]:
    """The four tensors of a weights document."""
    tensors = msgpack.unpackb(Path(path).read_bytes())["tensors"]
    assert {one["name"]: one["shape"] for one in tensors} == SHAPES, "another model than this learner's"
    return [swapped(array.array("f", one["data"])) for one in tensors]


def swapped(values: array.array) -> array.array:
    """Between this machine's byte order and little-endian."""
    if sys.byteorder == "big":
        values.byteswap()
    return values


def forward(weights: list[array.array], pixels: list[float]) -> tuple[list[float], list[float]]:
    """What the hidden layer says, and the probability of each digit."""
    w1, b1, w2, b2 = weights
    hidden = [max(0.0, b1[j] + sum(map(operator.mul, pixels, w1[j::64]))) for j in range(64)]
    logits = [b2[k] + sum(map(operator.mul, hidden, w2[k::10])) for k in range(10)]
    powers = [math.exp(logit - max(logits)) for logit in logits]
    return hidden, [power / sum(powers) for power in powers]


def train(weights: list[array.array], config: dict) -> bytes:
    """Some epochs over this learner's rows."""
    rate, epochs, mine = float(config.get("learning_rate", 0.1)), int(config.get("epochs", 1)), rows()[:ROWS]
    loss = 0.0
    for _ in range(epochs):
        for pixels, digit in mine:
            hidden, chances = forward(weights, pixels)
            loss -= math.log(max(chances[digit], 1e-12)) / (epochs * ROWS)
            for k in range(10):
                step = rate * (chances[k] - (k == digit))
                weights[3][k] -= step
                for j in range(64):
                    weights[2][10 * j + k] -= step * hidden[j]
    return document(weights, metrics={"loss": loss}, metadata={"num_training_examples": ROWS})


def evaluate(weights: list[array.array]) -> bytes:
    """Loss and accuracy on rows that are not trained on."""
    told = [(forward(weights, pixels)[1], digit) for pixels, digit in rows()[ROWS:]]
    hits = sum(chances.index(max(chances)) == digit for chances, digit in told)
    loss = sum(-math.log(max(chances[digit], 1e-12)) for chances, digit in told) / TEST_ROWS
    scores = {"metrics": {"accuracy": hits / TEST_ROWS, "loss": loss}}
    return json.dumps({**scores, "metadata": {"num_evaluation_examples": TEST_ROWS}}).encode()


def initial() -> bytes:
    """Weights of He et al. 2015, biases of zero."""
    draw = random.Random(1990)
    drawn = [
        [draw.gauss(0, (2 / 64) ** 0.5) if len(shape) == 2 else 0.0 for _ in range(math.prod(shape))]
        for shape in SHAPES.values()
    ]
    return document([array.array("f", values) for values in drawn])


if __name__ == "__main__":
    what, *files = sys.argv[1:]
    if what == "init":
        result = initial()
    elif what == "train":
        result = train(tensors_of(files[0]), json.loads(Path(files[1]).read_text())["config"])
    else:
        result = evaluate(tensors_of(files[0]))
    sys.stdout.buffer.write(result)
