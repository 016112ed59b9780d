"""A day with a GPU within a given time: GPU tests, tables of the bench, full-size rows.

    __main__    the command line: `python -m rmploss_bench.on_gpu SECONDS OUT`
    plan        what is done, in which order, as plain data
    record      OUT/state.json: what is done and what was measured
    clock       the time that is left; a process that ends with it
    tables      the tests and the tables, each in a process of its own
    training    a full-size row: estimate, train or resume, pack
    packing     run folders as archives below 16 MiB, and back

`benchmarks/on_gpu.sh` installs what is missing and calls it. Every part's result is on the disk
before the next part begins, and a second call goes on where the first ended.
"""
