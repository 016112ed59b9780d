"""The LIF operation (Eqs. 1-3), with tdBN in front (Eqs. 6-7) and membrane moments (Eqs. 8-10).

reference.py, tdbn.py, moments.py   the equations
op.py, inputs.py                    the functions, and the record of their inputs
passes.py, autograd.py              forward and backward; saved tensors, schemas
native.py, triton.py                the kernels of the backends
"""
