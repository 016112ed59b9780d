"""Measure rmploss: time and memory of training, beside other libraries, behind a correctness gate.

    command                         `rmploss bench`: flags, topics, output
    conditions                      network, T, batch, threads, device, ... as plain data
    workload                        the network with its weights, and one batch of images
    blueprint                       a network as plain data, from which every peer builds its own
    runners                         a network under cross-entropy and SGD, which a contestant runs
    contestants                     the table of everything that is measured
    ours, engine_step               rmploss, and the step of its engine
    dense, peers/, onnx             the dense bound, the other libraries, ONNX Runtime
    capture                         a contestant whose step is one CUDA graph
    gate, gate_ops                  compare a contestant with the reference before it is measured
    timing                          rounds of steps and of evaluation (topics step, eval, scale)
    operations, methods, epoch      topics of the same name (operations: ops)
    whole_training                  the topic train: `rmploss train` itself
    scale, latency                  topics of the same name
    processes, child, memory        topics memory and first-step, in processes of their own
    on_gpu/                         all of it on a GPU within a given time, and full-size rows
    rows, table, hardware           CSV rows, tables for a terminal, the machine in words

A contestant whose gate is red gets no figure, and a peer that is not installed is named with what
to install. Times are seconds of wall clock, memory is in bytes.
"""
