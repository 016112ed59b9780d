"""Training: from a recipe to a run folder, through interruptions and over many processes.

train.py            train a recipe, resume a run
  build.py          recipe -> dataset, network, loss, ...; check the recipe
  execution.py      device, backend, loader processes        distributed.py  the process group
  initial_weights.py  from the seed, or a trained run        starts.py       rules for them
  go_on.py          begin or resume                          fork.py         from another run
  loop.py           epochs and batches                       batches.py      one rank's batches
    step.py         Algorithm 1, one iteration               optimizers.py   and learning rates
      capture.py    eagerly, or as a CUDA graph              static_batch.py its input
      tally.py      sums, the non-finite flag                loss_scale.py   for fp16
      averaging.py  averages of the weights                  flat.py        tensors as one
    evaluate.py     accuracy, quantization error, rates      signals.py      stop on a signal
    saving.py       save when it is due, or stop             save_clock.py  when it is due
    restore.py      the newest checkpoint                    epoch_record.py  of metrics.jsonl
    health.py       dead, saturated, diverging networks      run_health.py  those of one run
    failure.py      where other code raised                  notes.py       remarks and events
    divergence.py, examine.py, crash.py                      NaN: stop, and where it began
    training_state.py, checkpoint/, optimizer_state.py       saved and restored state
  after_training.py   membrane histograms and cost           run_summary.py  of metrics.jsonl
run/                the run folder                           environment.py  versions, machine
load.py             load a trained run, evaluate it          listener.py     callbacks
  trained.py        predict, from files of the run's kind
  pack.py, hub.py   a network to give away, and from a hub
"""
