"""What a learner with a torch module needs: its weights as arrays, a learner, FedProx and SCAFFOLD in its training."""

import torch

from .learner import TorchLearner, load_weights, seed_everything, weights_of
from .proximal import Proximal
from .scaffold import Scaffold

__all__ = ["Proximal", "Scaffold", "TorchLearner", "load_weights", "seed_everything", "weights_of"]
DEFAULT_THREADS = torch.get_num_threads()  # another number later is the user's choice (agent/threads.py)
