"""Measure rmploss: time and memory of training, beside other libraries, behind a correctness gate.

    command                         `rmploss bench`: flags, topics, output
    conditions                      network, T, batch, threads, device, ... as plain data
    workload                        the network with its weights, and one batch of images
    blueprint                       a network as plain data, from which every peer builds its own
    contestants                     the table of everything that is measured
    ours, dense, peers/             rmploss, the dense bound, the other libraries
    gate, gate_ops                  compare a contestant with the reference before it is measured
    timing                          rounds of steps and of evaluation (topics step, eval, scale)
    operations, methods, epoch      topics of the same name (operations: ops)
    scale                           the conditions of the topic scale
    processes, child, memory        topics memory and first-step, in processes of their own
    rows, table, hardware           CSV rows, tables for a terminal, the machine in words

A contestant whose gate is red gets no figure, and a peer that is not installed is named with what
to install. Times are seconds of wall clock, memory is in bytes.
"""
