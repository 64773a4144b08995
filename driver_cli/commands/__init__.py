"""The commands of `metis`: each reads its options, calls one function, and says what came of it."""
