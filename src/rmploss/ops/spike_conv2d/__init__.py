"""The convolution of spikes, which keeps them for backward as bits.

reference.py                        the equation
op.py, inputs.py                    the function, and the record of its inputs
passes.py, autograd.py, flops.py    forward and backward; saved tensors, schemas; FLOPs
native.py, triton.py, dense.py      event-driven and Winograd kernels; GPUs; PyTorch's convolution
"""
