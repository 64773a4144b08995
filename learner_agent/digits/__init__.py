"""A learner for demonstrations: real handwritten digits, carried with the package, and a small network in numpy.

Neither torch nor scikit-learn is needed.
"""

from .dataset import share, train_test_split
from .learner import DigitsLearner, digits_learner
from .perceptron import initial_weights, loss_and_gradients

__all__ = ["DigitsLearner", "digits_learner", "initial_weights", "loss_and_gradients", "share", "train_test_split"]
