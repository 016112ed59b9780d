"""The command line: `rmploss VERB`. One file per verb; a verb imports torch only when it runs."""

import atexit
import errno
import importlib
import io
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

from rmploss import __version__, plugins
from rmploss.cli.blame import foreign_frame
from rmploss.cli.first_help import first_help, require_verb
from rmploss.cli.sign_of_life import waiting
from rmploss.cli.threads import wait_asleep_if_busy
from rmploss.cli.wrapping import error_text, width_of, wrapped_help
from rmploss.errors import (
    InterruptedRunError,
    MemoryLimitError,
    Problem,
    StoreError,
    UserError,
)


def command() -> NoReturn:
    """The process of the command line: `main`, whose exit code it ends with.

    A rank of `torchrun` ends without the last steps of Python: the threads of PyTorch's gloo
    outlive their process group, and one that still returns a tensor then aborts the process.
    """
    code = main()
    if "RANK" not in os.environ:
        sys.exit(code)
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(code)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit code.

    0: success; 1: a bug of rmploss; 2: a mistake that the message explains; 3 to 12: see
    `rmploss.errors`; 75: interrupted, can be resumed; 130: Ctrl-C.
    """
    _repair_streams()
    words = [*(sys.argv[1:] if arguments is None else arguments)]
    if words == ["--version"]:
        print(f"rmploss {__version__}")
        return 0
    if words[:1] in ([], ["-h"], ["--help"]):
        print(first_help())
        return 0 if words else 2
    try:
        words = _use_plugins(words)
        require_verb(words[0] if words else "")
        code = _run(words)
    except SystemExit as end:  # of tyro: the help, or a wrong word
        code = end.code if isinstance(end.code, int) else 2
    except InterruptedRunError as stop:
        _print_error(str(stop))
        code = stop.exit_code
    except UserError as error:
        for note in getattr(error, "__notes__", ()):  # the traceback of a data set's own code
            _print_error(note)
        _print_error(error_text(error, width_of(sys.stderr)))
        code = error.exit_code
    except KeyboardInterrupt:
        _print_error("\nstopped")
        code = 130
    except BrokenPipeError:
        code = 0
    except Exception as error:
        if _is_out_of_memory(error):
            _print_error(error_text(_out_of_memory(error), width_of(sys.stderr)))
            return MemoryLimitError.exit_code
        code = _report_os_error(error) if isinstance(error, OSError) else _report_fault(error)
    try:
        sys.stdout.flush()
    except OSError as error:
        # A reader that closed the pipe is no error; nothing more is written to it.
        if not isinstance(error, BrokenPipeError):
            code = _report_os_error(error)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


def _run(words: Sequence[str]) -> int:
    """Run a verb: `run` of the class that its module has, the only one that is imported."""
    word, rest = words[0], words[1:]
    module = importlib.import_module(f"rmploss.cli.{word}")
    if word == "bench":
        return module.run(rest)
    import tyro

    config = (tyro.conf.FlagCreatePairsOff,)
    kind = getattr(module, word.capitalize())
    with wrapped_help():
        verb = tyro.cli(kind, prog=f"rmploss {word}", args=rest, config=config)
    wait_asleep_if_busy()
    if word != "list":  # which needs it for some topics only
        with waiting("loading PyTorch"):
            import torch  # noqa: F401  # here, so that people see what they wait for
    return verb.run()


def _use_plugins(words: Sequence[str]) -> Sequence[str]:
    """Name the plug-ins of `--import`, of any verb; returns the other words."""
    rest, named, left = [], [], iter(words)
    for word in left:
        flag, has_value, value = word.partition("=")
        if flag != "--import":
            rest.append(word)
            continue
        value = value if has_value else next(left, "")
        if not value or value.startswith("-"):
            problem = Problem("--import", "names no module", "--import my_module, or my_file.py")
            raise UserError("cannot read --import", [problem])
        named.append(value)
    plugins.use(named)
    return rest


def _report_fault(error: Exception) -> int:
    """Print the traceback of an exception, and whose code it is in."""
    _print_error("".join(traceback.format_exception(error)))
    theirs = foreign_frame(error)
    bug = "This is a bug of rmploss. Please report it with the output of `rmploss doctor`."
    _print_error(f"The error is not in rmploss, but in {theirs}." if theirs else bug)
    return 1


def _is_out_of_memory(error: Exception) -> bool:
    """True for an allocation that failed in Python, the system, PyTorch on the CPU, or on a GPU."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    words = ("can't allocate memory", "out of memory", "not enough memory", "bad_alloc")
    loading = ("failed to map segment", "cannot allocate memory", "Cannot allocate memory")
    kinds = {RuntimeError: words, ImportError: loading}
    return isinstance(error, MemoryError) or any(
        isinstance(error, kind) and any(word in str(error) for word in said)
        for kind, said in kinds.items()
    )


def _out_of_memory(error: Exception) -> MemoryLimitError:
    """What was in use, what was asked for, and which fields need less."""
    first_line = str(error).strip().partition("\n")[0] or "an allocation was refused"
    fix = "lower batch_size, T or network.width, or raise accumulate; checkpoints are intact"
    if isinstance(error, ImportError):
        fix = "this process may not take the memory that PyTorch needs: ulimit -v unlimited"
    return MemoryLimitError("out of memory", [Problem(_peak(), first_line, fix)])


def _peak() -> str:
    """The most memory that this process had so far."""
    if sys.platform == "win32":
        return "memory"
    import resource

    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return f"memory, at most {peak / 1e9:.1f} GB so far"


def _report_os_error(error: OSError) -> int:
    """Print an error of the system, such as a full disk behind standard output."""
    where = f"{error.filename}: " if error.filename else ""
    notes = "".join(f"\n{note}" for note in getattr(error, "__notes__", ()))
    _print_error(f"error: {where}{error.strerror or error}{notes}")
    return StoreError.exit_code


def _repair_streams() -> None:
    """Reopen closed standard streams, and print characters that the encoding lacks as `?`."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets this number, so that no file of ours does
    sys.stdout = sys.stdout or io.StringIO()
    sys.stderr = sys.stderr or io.StringIO()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def _print_error(text: str) -> None:
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)
