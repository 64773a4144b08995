"""Terminal 1: the controller, which hands out the model, averages what comes back, and never sees a picture."""

import argparse

from controller_api import Controller
from services import ControllerConfig, ModelStoreConfig, ServerParams


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=50051, help="port to listen on (50051)")
    args = parser.parse_args()
    Controller(
        server_params=ServerParams(hostname="localhost", port=args.port),
        controller_config=ControllerConfig(
            aggregation_rule="FedAvg",
            scheduler="Synchronous",
            scaling_factor="NumParticipants",
        ),
        model_store_config=ModelStoreConfig(model_store="InMemory", lineage_length=0),
    ).start()


if __name__ == "__main__":
    main()
