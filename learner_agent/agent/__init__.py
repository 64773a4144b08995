"""The agent: the machinery that takes part in a federation in a learner's place."""
