"""Training: from a recipe to a run folder, through interruptions and over many processes.

step.py       Algorithm 1, one iteration        build.py        recipe -> parts, and its check
train.py      the loop around it                optimizers.py   optimizers, learning rates
evaluate.py   accuracy, error, rates            load.py         trained networks back
run.py        the run folder                    checkpoint.py   checkpoints, verified
distributed.py, signals.py, environment.py, listener.py, optimizer_state.py
"""
