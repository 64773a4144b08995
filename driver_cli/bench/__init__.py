"""`metis bench`: what a round costs when the learners train nothing, beside what bare sockets need for the same.

`sweep` is what the command calls. `stress` measures rounds (one case a model size and number of learners), `durability`
the stores, `idle` learners that wait; `measurements` is what comes out, `printout` and `plot` show it. `floor` and
`crowd` are programs of their own, asked over `channel`: a process of theirs loads nothing of the rest.
"""
