"""How the files of trained networks compare in every runtime, as rows of docs/roundtrips.csv.

    python tools/roundtrips.py RUN ... [--samples 100]

ONNX in ONNX Runtime, NIR in every reader that is installed, and in the environment of nir 1.0.4, if
`tools/nir_1_0_4.sh` made it. The table of docs/deploy.md is made of the rows (`docs.py`).
"""

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from itertools import groupby
from pathlib import Path

import csv_rows
import nir_1_0_4
from source_map import ROOT

import rmploss
from rmploss.engine.run import RunFolder
from rmploss.engine.run_summary import summarize
from rmploss.engine.trained import Trained
from rmploss.export.graph import graph_of
from rmploss.export.nir_styles import STYLES
from rmploss.export.of_run import export_trained, inputs_of
from rmploss.export.parity import Parity, reference
from rmploss.export.to_nir import nir_bytes

TABLE = ROOT / "docs" / "roundtrips.csv"
OLD = {"norse": "norse", "sinabs": "sinabs", "rockpool": "nir"}
"""The readers of nir 1.0.4, and the style of their file."""


@dataclass(frozen=True)
class Row:
    """One file in one runtime.

    command: that trained the network; accuracy: of it, in percent of tested samples.
    differ, spikes: how many spikes differ, and of how many; empty where none are shown.
    logit_difference, largest_logit: absolute values.
    same_class: of so many samples.
    """

    command: str
    accuracy: float
    tested: int
    file: str
    runtime: str
    samples: int
    differ: int | str
    spikes: int | str
    logit_difference: float
    largest_logit: float
    same_class: int
    failure: str


def main(runs: list[str], samples: int) -> None:
    """Measure and write."""
    rows = [row for run in runs for row in of_run(Path(run), samples)]
    csv_rows.update(TABLE, [each.name for each in fields(Row)], lambda: [asdict(r) for r in rows])


def of_run(run: Path, samples: int) -> Iterator[Row]:
    """The rows of a run."""
    folder, net = RunFolder.open(run), rmploss.load(run)
    accuracy = float(summarize(folder.metrics())["last_accuracy"])
    tested = net.recipe.test_samples or 10_000
    for found in compared(net, samples):
        print(found.line(), flush=True)
        shown = bool(found.spikes)
        yield Row(
            command_of(net),
            accuracy,
            tested,
            found.file,
            found.runtime,
            found.samples,
            sum(found.spikes_that_differ.values()) if shown else "",
            sum(found.spikes.values()) if shown else "",
            found.max_logit_difference,
            found.largest_logit,
            round(found.top1_agreement * found.samples),
            found.failure,
        )


def compared(net: Trained, samples: int) -> Iterator[Parity]:
    """All comparisons of a network."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        yield from export_trained(net, ["onnx", "nir"], folder, samples=samples)
        for reader in STYLES:
            if STYLES[reader].own_file:
                yield from export_trained(net, ["nir"], folder, reader=reader, samples=samples)
        if not nir_1_0_4.is_there():
            return
        x = inputs_of(net, samples)
        graph, given = graph_of(net.net, x), reference(net.net, x)
        for reader, style in OLD.items():
            content = nir_bytes(graph, reader=style, oldest="1.0.4")
            name = "model.nir" if style == "nir" else f"model-{style}.nir"
            yield nir_1_0_4.compare(content, graph, given, reader, folder, name)


def command_of(net: Trained) -> str:
    """The command that trains the network, as far as it differs from its recipe."""
    from rmploss import recipes

    base, own = recipes.get(net.recipe.name), net.recipe
    words = ["rmploss train", own.name]
    if own.network.options.get("width") != base.network.options.get("width"):
        words.append(f"--width {own.network.options['width']}")
    changed = ("train_samples", "test_samples", "epochs", "T")
    words += [
        f"--{name.replace('_', '-')} {getattr(own, name)}"
        for name in changed
        if getattr(own, name) != getattr(base, name)
    ]
    return " ".join(words)


def table() -> str:
    """The rows as Markdown, a table for each network."""
    rows = csv_rows.read(TABLE)
    lines: list[str] = []
    for command, group in groupby(rows, lambda row: row["command"]):
        members = [*group]
        first = members[0]
        accuracy, largest = float(first["accuracy"]), float(first["largest_logit"])
        lines += [
            f"`{command}`: {accuracy:.1f} % of {first['tested']} test images are right.",
            f"Compared on {first['samples']} of them; the largest logit is {largest:.2f}.",
            "",
            "| file | run in | spikes that differ | largest difference of a logit | same class |",
            "|---|---|---:|---:|---:|",
        ]
        for row in members:
            lines.append("| " + " | ".join(_cells(row)) + " |")
        lines.append("")
    return "\n".join(lines).rstrip()


def _cells(row: dict[str, str]) -> list[str]:
    head = [f"`{row['file']}`", row["runtime"]]
    if row["failure"]:
        return [*head, f"not read: `{row['failure'].replace('|', '')}`", "", ""]
    spikes = f"{int(row['differ']):,} of {int(row['spikes']):,}" if row["spikes"] else ""
    return [*head, spikes, f"{float(row['logit_difference']):.1e}", row["same_class"]]


if __name__ == "__main__":
    words = sys.argv[1:]
    count = 100
    if "--samples" in words:
        place = words.index("--samples")
        count = int(words[place + 1])
        del words[place : place + 2]
    main(words, count)
