"""The commands of `metis`: each reads its options, calls one function, and says what came of it.

What a command needs is imported when it runs: `metis --help` is there at once.
"""
