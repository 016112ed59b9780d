"""The convolution of spikes, which keeps them for backward as bits.

reference.py  the equation     inputs.py  what a call reads     op.py  forward, backward
native.py  event-driven and Winograd kernels     dense.py  PyTorch's convolution
"""
