"""What the package costs beside DSPy and others, as ratios within one run.

`make bench` measures all rows but the long ones three times over and takes some 20 minutes; `make bench-all` has the
long ones, too. While working on one:

    python -m benchmarks --list
    python -m benchmarks --only lm-compile
    python -m benchmarks --only hits --rounds 5
    python -m benchmarks --only 'lm-*' predict-eval

A figure is called by its row, its case (the engine, the peer, the size) and its state: *hot* is what was served
before, *first* what is decoded for the first time in this process, with its bytes in memory, or with `-disk` on disk. A
ratio is ours by theirs, so that less is better, of CPU seconds of the process; it is the median of those of rounds that
were timed in turn. On a busy machine look at the ratio of the minima, too, and believe neither where the two are far
apart.

`rounds` times, `figures` compares, `bars` says what is to be reached, `rows` knows the rows, `results` writes; `scene`
is what rows are measured on. Each other file holds the rows of one theme. Results go to outputs/bench.
"""
