"""Training: from a recipe to a run folder, through interruptions and over many processes.

step.py       Algorithm 1, one iteration        build.py        recipe -> parts, and its check
loop.py       the loop around it                optimizers.py   optimizers, learning rates
train.py      runs from the start, and resumed  start.py        the first weights
state.py      what training changes             checkpoint.py   checkpoints, verified
evaluate.py   accuracy, error, rates            load.py         trained networks back
run.py        the run folder                    summary.py      what a run came to
execution.py  device, processes, backend        distributed.py, signals.py, environment.py,
                                                listener.py, optimizer_state.py, closing.py
"""
