"""Listeners that show a run in TensorBoard or Weights & Biases, beside the terminal.

    train(recipe, runs, listener=Several(TextLines(sys.stderr), tracker("tensorboard", print)))

Optional: `pip install 'rmploss[track]'`. A tracker gets the numbers of every epoch (`scalars`) and
never ends a run: its first error is told once, and it gets nothing more.
"""

from rmploss.track.listeners import Guarded, Several
from rmploss.track.scalars import scalars
from rmploss.track.trackers import TRACKERS, tracker

__all__ = ["TRACKERS", "Guarded", "Several", "scalars", "tracker"]
