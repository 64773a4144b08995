"""Whether this checkout's commit costs more than another one: `metis bench` of both, in turns, on this machine.

    scripts/benchmarks pair HEAD~5                  small, medium and large: about ten minutes on two quiet cores
    scripts/benchmarks pair v0.1.0 disk idle        parts: small, medium, large, disk, idle
    scripts/benchmarks pair HEAD~5 --pairs 15       more pairs: smaller losses can be seen
    scripts/benchmarks pair HEAD~5 -- --params 1M --learners 50 --rounds 20     a case of your own for `metis bench`

Both commits are checked out into worktrees in a temporary folder and run with the packages installed here. What is not
committed is not measured. In each turn every case is measured three times, in an order that changes from turn to turn:
this commit once, the other one twice.

  ratio         median over the turns of: this / mean of the other's two
  A/A interval  where the median over the turns of: the other's one / its other one lies, that is, the same code beside
                itself, by at least 95 % (order statistics: Le Boudec, Performance Evaluation of Computer and
                Communication Systems, 2010, theorem 2.1; with seven turns from the lowest to the highest)
  not worse     the ratio is at most 1.05, or inside the A/A interval

Exit status: 0 nothing is worse, 1 something is, 2 wrong usage, 3 it could not be measured, 130 interrupted.
"""
