"""The LIF operation (Eqs. 1-3), with tdBN in front (Eqs. 6-7) and membrane moments (Eqs. 8-10).

reference.py  the equations          inputs.py  what a call reads     op.py  forward, backward
tdbn.py, moments.py  their parts     native.py, triton.py  the kernels of the backends
"""
