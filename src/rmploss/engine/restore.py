"""Restore the newest checkpoint of a run, and say what was lost and what may differ."""

from rmploss.engine.checkpoint import Loaded
from rmploss.engine.execution import Execution, inexact_reasons, require_same_checkpoint
from rmploss.engine.listener import Listener
from rmploss.engine.run import RunFolder
from rmploss.engine.training_state import TrainingState


def restore(
    state: TrainingState, folder: RunFolder, execution: Execution, listener: Listener
) -> None:
    """Restore the newest checkpoint that verifies, and cut the record of the run back to it.

    state: is set.
    folder: of the run; rank 0 owns its lock.
    execution: of the resumed run.
    listener: is notified of rejected checkpoints, of damage, and of what may differ.
    """
    loaded = state.load(folder)
    require_same_checkpoint(state.world, loaded)
    if not state.world.is_main:
        return
    lost = _lost(folder, loaded)
    folder.rewind(loaded.counters)
    reasons = [f"{name}: {reason}" for name, reason in loaded.rejected]
    differs = inexact_reasons(loaded, folder.events(), state.world, execution.deterministic)
    folder.log_event(
        "resume",
        step=loaded.counters.step,
        rejected=reasons,
        inexact=differs,
        command=list(execution.command),
    )
    if lost:
        folder.log_event("damaged", files=lost)  # Tables do not count such a run.
    for what in lost:
        listener.note(f"damaged, the run goes on: {what}")
    for reason in reasons:
        listener.note(f"checkpoint rejected: {reason}")
    for reason in differs:
        listener.note(f"may differ from an unbroken run in the last bits: {reason}")


def _lost(folder: RunFolder, loaded: Loaded) -> list[str]:
    """What the record of the run has lost before this checkpoint."""
    lost = []
    if loaded.metrics not in (None, folder.metrics_hash(loaded.counters)):
        lost.append("metrics.jsonl: lines before the checkpoint are damaged or missing")
    if not folder.has_manifest() and loaded.metrics is not None:
        lost.append("events.jsonl: its first event, or all of it, is damaged or missing")
    return lost
