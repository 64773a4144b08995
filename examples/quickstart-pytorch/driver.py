"""Terminal 5: the driver, which waits for three learners, runs five rounds, and writes the results."""

import argparse
import sys

from driver_cli import DriverSession
from services import ServerParams, TerminationSignals
from services.errors import FederationError


def main() -> None:
    """Run the federation, then print the loss and the accuracy of each round's model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=50051, help="the controller's port (50051)")
    parser.add_argument("--learners", type=int, default=3, help="how many learners to wait for (3)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds to run (5)")
    parser.add_argument("--out", default="results.json", help="file for the results (results.json)")
    parser.add_argument("--shutdown", action="store_true", help="end the controller and the learners afterwards")
    args = parser.parse_args()
    session = DriverSession(
        controller=ServerParams(hostname="localhost", port=args.port),
        learners=args.learners,
        termination_signals=TerminationSignals(federation_rounds=args.rounds),
        out=args.out,
        shutdown=args.shutdown,
    )
    try:
        results = session.run()
    except FederationError as error:
        sys.exit(f"driver: {error}")
    for entry in results["rounds"]:
        scores = entry["evaluation_metrics"]["combined"]
        shown = [f"{name} {scores[name]:.4f}" for name in ("loss", "accuracy") if scores.get(name) is not None]
        print(f"round {entry['round']}: {', '.join(shown) or 'not evaluated'}")
    print(f"results in {args.out}")
    if results["run"]["state"] != "completed":
        sys.exit(f"driver: the run {results['run']['state']}: {results['run']['reason']}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
