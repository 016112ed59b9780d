"""The command line: `rmploss VERB`. One file per verb; nothing heavy is imported before it runs."""

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import tyro

from rmploss.cli.data import Data
from rmploss.cli.demo import Demo
from rmploss.cli.doctor import Doctor
from rmploss.cli.eval import Eval
from rmploss.cli.list import List
from rmploss.cli.report import Report
from rmploss.cli.table import Table
from rmploss.cli.train import Train
from rmploss.errors import UserError

Verb = (
    Annotated[Demo, tyro.conf.subcommand("demo")]
    | Annotated[List, tyro.conf.subcommand("list")]
    | Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Eval, tyro.conf.subcommand("eval")]
    | Annotated[Table, tyro.conf.subcommand("table")]
    | Annotated[Report, tyro.conf.subcommand("report")]
    | Annotated[Data, tyro.conf.subcommand("data")]
    | Annotated[Doctor, tyro.conf.subcommand("doctor")]
)

ABOUT = """Train low-latency spiking neural networks with RMP-Loss (Guo et al., ICCV 2023).

$ rmploss demo                                          see it work: digits, under a minute
$ rmploss list                                          all recipes
$ rmploss train cifar10-resnet20-rmp --T 4 --seed 1     one row of the paper's Table 1
$ rmploss train --resume runs/NAME                      go on with an interrupted run
$ rmploss table 1                                       the paper's numbers beside yours
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code.

    0: done; 2: a mistake that the message explains; 3 to 8: see `rmploss.errors`; 75: interrupted,
    resume it; 130: Ctrl-C.
    """
    try:
        verb = tyro.cli(
            Verb,  # pyright: ignore[reportArgumentType]
            prog="rmploss",
            description=ABOUT,
            args=arguments,
            config=(tyro.conf.FlagCreatePairsOff,),
        )
        code = verb.run()
        sys.stdout.flush()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        code = error.exit_code
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        code = 130
    except BrokenPipeError:
        # The reader of our output went away: nothing is wrong, and nothing more can be said.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    return code
