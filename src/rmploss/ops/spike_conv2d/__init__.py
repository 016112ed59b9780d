"""The convolution of spikes, which keeps them for backward as bits.

reference.py                        the equation
op.py, inputs.py                    the function, and what a call reads
passes.py, autograd.py, flops.py    forward and backward; what is kept between them, schemas; FLOPs
native.py, triton.py, dense.py      event-driven and Winograd kernels; GPUs; PyTorch's convolution
"""
