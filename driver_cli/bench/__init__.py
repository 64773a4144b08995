"""`metis bench`: what a round costs when the learners train nothing, beside what bare sockets need for the same.

`stress` measures rounds (one case a model size and number of learners), `idle` learners that wait; `measured` is what
comes out, `tables` and `plot` show it. `floor` and `crowd` are programs of their own, asked over `channel`.
"""
