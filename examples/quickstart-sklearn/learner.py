"""Terminals 2 to 4: `python learner.py -l X`, X from 1 to 3, fits a scikit-learn model on its third of the digits."""

import argparse
import math
import sys
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split

from learner_agent import Learner, app, progress
from services import ClientParams
from services.errors import FederationError
from services.partition import iid_partition

CLASSES = np.arange(10)


class SklearnLearner(Learner):
    """Logistic regression by stochastic gradient descent on one share of the 8x8 digits."""

    names = ("coef", "intercept")

    def __init__(self, index: int, num_learners: int) -> None:
        x, y = load_digits(return_X_y=True)
        x_train, x_test, y_train, y_test = train_test_split(x / 16, y, test_size=0.2, random_state=1990, stratify=y)
        x_chunks, y_chunks = iid_partition(x_train=x_train, y_train=y_train, num_partitions=num_learners)
        self.x, self.y = x_chunks[index], y_chunks[index]
        x_chunks, y_chunks = iid_partition(x_train=x_test, y_train=y_test, num_partitions=num_learners)
        self.x_test, self.y_test = x_chunks[index], y_chunks[index]
        self.model = SGDClassifier(loss="log_loss", learning_rate="constant", eta0=0.1, random_state=index)
        self.model.partial_fit(self.x[:1], self.y[:1], classes=CLASSES)  # only now the model has its arrays
        self.set_weights([np.zeros((10, 64)), np.zeros(10)])

    def get_weights(self) -> list[NDArray[Any]]:
        """One row of coefficients and one intercept a digit: (10, 64) and (10,), float64."""
        return [self.model.coef_.copy(), self.model.intercept_.copy()]

    def set_weights(self, weights: list[NDArray[Any]]) -> None:
        """Go on from these."""
        self.model.coef_, self.model.intercept_ = np.array(weights[0]), np.array(weights[1])

    def train(
        self, weights: list[NDArray[Any]], config: dict[str, Any]
    ) -> tuple[list[NDArray[Any]], dict[str, float], dict[str, float]]:
        """One pass over this learner's rows, or the run's `epochs`, in batches of `batch_size` (32)."""
        self.set_weights(weights)
        batch_size = int(config.get("batch_size", 32))
        per_epoch = math.ceil(len(self.y) / batch_size)
        budget = int(config.get("num_local_updates") or config.get("epochs", 1) * per_epoch)
        shuffle, started = np.random.default_rng(config.get("round", 0)), time.perf_counter()
        for batch in range(budget):
            epoch, place = divmod(batch, per_epoch)
            if place == 0:
                order = shuffle.permutation(len(self.y))
            rows = order[place * batch_size : (place + 1) * batch_size]
            self.model.partial_fit(self.x[rows], self.y[rows])
            progress(epoch=epoch + 1, batch=place + 1)
        per_batch = (time.perf_counter() - started) * 1000 / budget
        metadata = {
            "num_training_examples": len(self.y),
            "num_completed_batches": budget,
            "processing_ms_per_batch": per_batch,
            "processing_ms_per_epoch": per_batch * per_epoch,
        }
        return self.get_weights(), self.scores(self.x, self.y), metadata

    def evaluate(self, weights: list[NDArray[Any]], config: dict[str, Any]) -> dict[str, float]:
        """Loss and accuracy of the given weights on this learner's share of the test rows."""
        self.set_weights(weights)
        return {**self.scores(self.x_test, self.y_test), "num_evaluation_examples": len(self.y_test)}

    def scores(self, x: NDArray[Any], y: NDArray[Any]) -> dict[str, float]:
        """Mean cross-entropy and the share of right answers."""
        loss = log_loss(y, self.model.predict_proba(x), labels=CLASSES)
        return {"loss": float(loss), "accuracy": float(self.model.score(x, y))}


def main() -> None:
    """Serve the federation until it is over or the process is told to end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-l", "--learner", type=int, required=True, metavar="X", help="which learner, from 1")
    parser.add_argument("-m", "--max-learners", type=int, default=3, help="how many share the data (3)")
    parser.add_argument("--port", type=int, default=50051, help="the controller's port (50051)")
    args = parser.parse_args()
    if not 1 <= args.learner <= args.max_learners:
        parser.error(f"--learner must be from 1 to {args.max_learners}")
    learner = SklearnLearner(args.learner - 1, args.max_learners)
    where = ClientParams(hostname="localhost", port=args.port)
    try:
        app(learner=learner, client_params=where, name=f"learner-{args.learner}")
    except FederationError as error:
        sys.exit(f"learner {args.learner}: {error}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
