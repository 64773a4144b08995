"""Terminals 2 to 4: `python learner.py -l X`, X from 1 to 3, trains on its third of the data, which it never sends."""

import argparse
import math
import sys
import time
from typing import Any

import torch
from data import Share, load_share
from model import Model
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy

from learner_agent import app, progress
from learner_agent.pytorch import TorchLearner
from services import ClientParams
from services.errors import FederationError

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class ImageLearner(TorchLearner):
    """The tutorial's network on one share of the pictures."""

    def __init__(self, trainset: Share, testset: Share, seed: int) -> None:
        self.trainset, self.testset = trainset, testset
        torch.manual_seed(seed)
        self.model = Model(channels=trainset.x.shape[1], size=trainset.x.shape[2]).to(DEVICE)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01, momentum=0.9)

    def train(
        self, weights: list[NDArray[Any]], config: dict[str, Any]
    ) -> tuple[list[NDArray[Any]], dict[str, float], dict[str, float]]:
        """One epoch, or the run's `epochs`, or as many batches as its `num_local_updates` allow."""
        self.set_weights(weights)
        self.model.train()
        for group in self.optimizer.param_groups:
            group.update(lr=config.get("learning_rate", 0.01), momentum=config.get("momentum", 0.9))
        examples, batch_size = len(self.trainset.y), int(config.get("batch_size", 32))
        per_epoch = math.ceil(examples / batch_size)
        budget = int(config.get("num_local_updates") or config.get("epochs", 1) * per_epoch)
        losses, correct, seen, done, started = 0.0, 0, 0, 0, time.perf_counter()
        while done < budget:
            for batch in torch.randperm(examples).split(batch_size)[: budget - done]:
                images, labels = self.trainset.x[batch].to(DEVICE), self.trainset.y[batch].to(DEVICE)
                self.optimizer.zero_grad()
                scores = self.model(images)
                loss = cross_entropy(scores, labels)
                loss.backward()
                self.optimizer.step()
                losses += loss.item() * len(batch)
                correct += int((scores.argmax(1) == labels).sum())
                seen += len(batch)
                progress(epoch=done // per_epoch + 1, batch=done % per_epoch + 1, loss=loss.item())
                done += 1
        per_batch = (time.perf_counter() - started) * 1000 / done
        metadata = {
            "num_training_examples": examples,
            "num_completed_batches": done,
            "processing_ms_per_batch": per_batch,
            "processing_ms_per_epoch": per_batch * per_epoch,
        }
        return self.get_weights(), {"loss": losses / seen, "accuracy": correct / seen}, metadata

    def evaluate(self, weights: list[NDArray[Any]], config: dict[str, Any]) -> dict[str, float]:
        """Mean loss and accuracy of the given weights on this learner's share of the test pictures."""
        self.set_weights(weights)
        self.model.eval()
        losses, correct, examples = 0.0, 0, len(self.testset.y)
        with torch.no_grad():
            for images, labels in zip(self.testset.x.split(500), self.testset.y.split(500), strict=True):
                scores, truth = self.model(images.to(DEVICE)), labels.to(DEVICE)
                losses += cross_entropy(scores, truth, reduction="sum").item()
                correct += int((scores.argmax(1) == truth).sum())
        return {"loss": losses / examples, "accuracy": correct / examples, "num_evaluation_examples": examples}


def main() -> None:
    """Load this learner's share, then serve the federation until it is over or the process is told to end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-l", "--learner", type=int, required=True, metavar="X", help="which learner, from 1")
    parser.add_argument("-m", "--max-learners", type=int, default=3, help="how many share the data (3)")
    parser.add_argument("--dataset", choices=["cifar10", "fashion-mnist"], default="cifar10")
    parser.add_argument("--data-dir", help="folder of the data (METIS_DATA, or ~/.cache/metis)")
    parser.add_argument("--rows", type=int, help="training rows of all learners together (all)")
    parser.add_argument("--port", type=int, default=50051, help="the controller's port (50051)")
    args = parser.parse_args()
    if not 1 <= args.learner <= args.max_learners:
        parser.error(f"--learner must be from 1 to {args.max_learners}")
    try:
        trainset, testset = load_share(args.dataset, args.learner - 1, args.max_learners, args.data_dir, args.rows)
    except (OSError, ValueError) as error:
        sys.exit(f"learner {args.learner}: {error}")
    print(f"learner {args.learner}: {len(trainset.y)} training and {len(testset.y)} test pictures", flush=True)
    learner = ImageLearner(trainset, testset, seed=args.learner)
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
