"""What `rmploss bench` measures: time and memory of a training step, beside peers, after a gate.

    plan         a network as plain data, so that every peer can build the same one
    case         one benchmark: network, weights, images
    contestants  who takes part: ours, the peers, the dense bound
    gate         nobody's figure is shown who computes something else
    timing, memory, first_step, operations      the measurements
    rows, table                                 what is printed and kept

No figure of a contestant whose gate is red is ever shown, and a peer that is not installed is named
as such. All times are seconds of wall clock, all memory is in bytes.
"""
