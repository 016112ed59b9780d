"""Break the code on purpose, one place at a time, and see whether a test notices:

    python tools/mutations.py --out docs/mutations.json            # all, some minutes
    python tools/mutations.py journal-half-lines loop-no-skip      # these alone

Each mutation replaces one text in a copy of `src`, and runs the tests that should fail on it; the
copy is found through PYTHONPATH. Exit code 1 if one is not noticed. `tests/test_mutations.py`
checks that every text is still there, once.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "rmploss"


@dataclass(frozen=True)
class Mutation:
    """One fault of the code.

    name: of the mutation.
    what: it does, in words.
    file: relative to the package.
    old, new: the text, and what replaces it.
    tests: words for pytest; at least one of these tests must fail.
    """

    name: str
    what: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


MUTATIONS = (
    Mutation(
        "fsync-retried",
        "an fsync that failed is repeated on the same file",
        "_disk.py",
        "def _flush(file: int) -> None:\n",
        "def _flush(file: int) -> None:\n    try:\n        os.fsync(file)\n        return\n"
        "    except OSError:\n        pass\n",
        ("tests/engine/test_disk.py", "-k", "fsync"),
    ),
    Mutation(
        "pickle-alias",
        "a pickle is written under another name",
        "engine/checkpoint/write.py",
        "import safetensors.torch\nimport torch\n",
        "import safetensors.torch\nimport torch\nimport torch as t\n\nkeep = t.save\n",
        ("tests/test_architecture_pickle.py",),
    ),
    Mutation(
        "pickle-read",
        "a pickle is read under another name",
        "data/digits.py",
        "from sklearn.datasets import load_digits\n",
        "import pickle as p\n\nfrom sklearn.datasets import load_digits\n\nread = p.loads\n",
        ("tests/test_architecture_pickle.py",),
    ),
    Mutation(
        "store-half-line",
        "a line without an end counts as complete",
        "store.py",
        '*lines, rest = path.read_bytes().split(b"\\n")',
        'lines, rest = path.read_bytes().split(b"\\n"), b""',
        ("tests/test_store.py", "tests/test_store_crashes.py"),
    ),
    Mutation(
        "store-living",
        "the temporaries of a living process are removed",
        "store.py",
        "        if _is_alive(pid, began)\n    ]",
        "        if False\n    ]",
        ("tests/test_store.py",),
    ),
    Mutation(
        "checkpoint-keep-one",
        "only one checkpoint is kept",
        "engine/checkpoint/write.py",
        "for old in older[keep:]:",
        "for old in older[keep - 1 :]:",
        ("tests/engine/test_checkpoint.py",),
    ),
    Mutation(
        "checkpoint-spare",
        "the checkpoint of the best epoch is removed",
        "engine/checkpoint/write.py",
        "if order(old)[0] not in spare:",
        "if True:",
        ("tests/engine/test_checkpoint.py", "tests/engine/test_load.py"),
    ),
    Mutation(
        "loop-no-skip",
        "an epoch that was interrupted begins again with its first batch",
        "engine/loop.py",
        "skip=state.counters.batch,",
        "skip=0,",
        ("tests/engine/test_resume.py",),
    ),
    Mutation(
        "loop-manifest-stays",
        "a resumed run keeps the manifest of before",
        "engine/loop.py",
        "                manifest.remove(path)\n",
        "                pass\n",
        ("tests/engine/test_verify.py", "-k", "not no_damage"),
    ),
    Mutation(
        "step-buffers",
        "running statistics of a step that was not finite are kept",
        "engine/step.py",
        "        self.buffers.restore(before, stopped, None if scale is None else skip)\n",
        "",
        ("tests/engine/test_capture.py", "-k", "nan"),
    ),
    Mutation(
        "tally-first-bad",
        "the last bad step is reported in place of the first",
        "engine/tally.py",
        "torch.where(first, self.step, self.first_bad, out=self.first_bad)",
        "torch.where(bad, self.step, self.first_bad, out=self.first_bad)",
        ("tests/engine/test_capture.py", "-k", "nan"),
    ),
    Mutation(
        "ddp-order",
        "three ranks round the sums of the first step after a resume in another order",
        "engine/distributed.py",
        "torch.stack([(0 * p).sum() for p in parameters]).sum().backward()",
        "del parameters",
        ("tests/engine/test_ranks.py", "-k", "go_on"),
    ),
    Mutation(
        "attempt-number",
        "a rank takes what an earlier start of the ranks agreed on for its own",
        "engine/attempt.py",
        'answer = f"{name} {number}"',
        'answer = f"{name} 0"',
        ("tests/engine/test_attempt.py", "-x"),
    ),
    Mutation(
        "state-terms-of-every-rank",
        "after a resume every rank counts the saved sums",
        "engine/training_state.py",
        'Terms(loaded.extra["terms"]) if self.world.is_main else None',
        'Terms(loaded.extra["terms"])',
        ("tests/engine/test_ranks.py", "-k", "go_on"),
    ),
    Mutation(
        "manifest-unlisted-checkpoint",
        "a checkpoint that the manifest lacks is accepted",
        "engine/manifest.py",
        'if name.startswith("ckpt/") and name not in manifest["files"]:',
        "if False:",
        ("tests/engine/test_verify.py", "-k", "not no_damage"),
    ),
    Mutation(
        "journal-half-lines",
        "what a refused line left in the file is kept before it is written again",
        "engine/journal.py",
        "return data[: self._sound] +",
        "return data +",
        ("tests/engine/test_disk.py", "-k", "line"),
    ),
    Mutation(
        "batches-signals",
        "loader processes die of a signal to the whole group",
        "data/_loader_process.py",
        "before = signal.pthread_sigmask(signal.SIG_BLOCK,",
        "before = signal.pthread_sigmask(signal.SIG_UNBLOCK,",
        ("tests/engine/test_signals.py", "-k", "loaders"),
    ),
    Mutation(
        "averaging-count",
        "a step that was not finite counts for the average",
        "engine/averaging.py",
        "self._count += 1 if skip is None else ~skip",
        "self._count += 1",
        ("tests/engine/test_averaging.py",),
    ),
    Mutation(
        "fetch-continues",
        "the rest of a download is appended although the server sent the whole",
        "data/fetch.py",
        "if here and not _continues(reply, here):",
        "if False:",
        ("tests/data/test_fetch.py",),
    ),
    Mutation(
        "rewind-late-lines",
        "lines after the checkpoint stay when a run is resumed",
        "engine/run/folder.py",
        'return new and record["epoch"] <= counters.epoch and record["step"] <= counters.step',
        "return new",
        ("tests/engine/test_run.py",),
    ),
    Mutation(
        "watched-parents",
        "a folder above the run folder's files may be replaced",
        "_watched.py",
        "for folder in (*reversed(path.parents), path):",
        "for folder in (path,):",
        ("tests/engine/test_disk.py", "-k", "replaced"),
    ),
)
"""All mutations; the first two went unnoticed once."""


def noticed(mutation: Mutation) -> str:
    """The first test that fails on a mutation; empty: none does."""
    with tempfile.TemporaryDirectory(prefix="mutation-") as scratch:
        source = Path(scratch) / "src"
        shutil.copytree(PACKAGE.parent, source, ignore=shutil.ignore_patterns("__pycache__"))
        path = source / "rmploss" / mutation.file
        text = path.read_text(encoding="utf-8")
        if text.count(mutation.old) != 1:
            sys.exit(f"{mutation.name}: its text is {text.count(mutation.old)} times in {path}")
        path.write_text(text.replace(mutation.old, mutation.new), encoding="utf-8")
        environment = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
        words = [sys.executable, "-m", "pytest", "-q", "-x", "--tb=no", "-p", "no:cacheprovider"]
        done = subprocess.run(
            [*words, *mutation.tests],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    failed = [line.split()[1] for line in done.stdout.splitlines() if line[:6] in _FAILED]
    if done.returncode not in (0, 1) or (done.returncode == 1) != bool(failed):
        sys.exit(f"{mutation.name}: the tests did not run\n{done.stdout[-2000:]}")
    return failed[0] if failed else ""


_FAILED = ("FAILED", "ERROR ")


def main() -> int:
    """Try the mutations; 1 if one is not noticed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", help="of mutations; none: all")
    parser.add_argument("--out", type=Path, help="also write the outcome to this JSON file")
    options = parser.parse_args()
    chosen = [m for m in MUTATIONS if not options.names or m.name in options.names]
    unknown = set(options.names) - {m.name for m in chosen}
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    found = {}
    for mutation in chosen:
        found[mutation.name] = {"what": mutation.what, "noticed by": noticed(mutation)}
        print(
            f"{mutation.name:30} {found[mutation.name]['noticed by'] or 'NOT NOTICED'}", flush=True
        )
    if options.out is not None:
        options.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return int(not all(entry["noticed by"] for entry in found.values()))


if __name__ == "__main__":
    sys.exit(main())
