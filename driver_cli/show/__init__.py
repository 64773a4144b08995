"""What is shown of a run to people: words, tables, curves; lines in a pipe, a live view on a terminal."""

from . import tables, words
from .display import Display, Silent, display_for, stderr
from .view import LEARNER_EVENTS, View

__all__ = ["LEARNER_EVENTS", "Display", "Silent", "View", "display_for", "stderr", "tables", "words"]
