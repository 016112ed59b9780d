"""The GPU kernels of the LIF operation. Importing any of these files imports Triton.

A program owns a tile [BLOCK_R, BLOCK_C] of rows x channels; channels are the fast axis, so that
loads are coalesced, and it walks `tiles` tiles one below the other, adding up its sums over rows in
registers. Sums leave a program once, into a row of their own: no atomics, the same bits every time.

Backward must see the spikes of forward, or the reset and its gradient disagree. It computes the
membrane once more by the same functions (equations.py), and every kernel is launched with
`enable_fp_fusion=False`: each product and each sum is then rounded on its own, in whatever kernel
the compiler finds it, and never contracted to a * b + c with one rounding.

A Python number would reach a kernel as float32. Every argument that is no tensor is therefore a
`constexpr`, which takes the type of what it meets; a neuron's constants do not change during a run.
"""
