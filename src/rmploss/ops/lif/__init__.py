"""The LIF operation (Eqs. 1-3), with tdBN in front (Eqs. 6-7) and membrane moments (Eqs. 8-10).

reference.py, tdbn.py, moments.py   the equations
op.py, inputs.py                    the functions, and what a call reads
passes.py, autograd.py              forward and backward; what is kept between them, schemas
native.py, triton.py                the kernels of the backends
"""
