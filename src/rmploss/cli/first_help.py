"""What `rmploss` says of itself on one screen of 24 lines by 80 columns, and of an unknown verb."""

from rmploss.errors import UserError, unknown

SUMMARIES = {
    "demo": "train on bundled digits without and with RMP-Loss, and compare",
    "list": "recipes, methods, networks, neurons, ... and their options",
    "train": "train a recipe, or resume an interrupted run",
    "eval": "evaluate a run on its test split, layer by layer",
    "predict": "the classes that a trained network sees in images, recordings",
    "export": "write a trained network as ONNX, NIR, torch.export, TorchScript",
    "pack": "put a trained network into one folder to give away",
    "search": "choose the settings of the fair comparison's systems by tries",
    "table": "a table of the paper beside your runs",
    "report": "one HTML page about runs; their figures as PNG, SVG and CSV",
    "verify": "check the files of runs against their hashes",
    "bench": "seconds and memory of a training step, beside other libraries",
    "data": "show which data sets are here, or fetch one",
    "doctor": "versions, devices, backends and a self-test, for bug reports",
}
"""Every verb, and what it does."""
EXAMPLES = """\
  $ rmploss demo                                       under a minute, no GPU
  $ rmploss train cifar10-resnet20-rmp --T 4 --seed 1  one row of Table 1
  $ rmploss train --resume runs/NAME                   after an interruption
Every verb takes --import MODULE, or FILE.py, once or several times: a plug-in
of yours (docs/add-a-method.md). `rmploss --version` says the version."""


def first_help() -> str:
    """The help of `rmploss --help`."""
    verbs = "\n".join(f"  {verb:<9}{summary}" for verb, summary in SUMMARIES.items())
    return (
        "Train low-latency spiking neural networks with RMP-Loss (Guo et al., ICCV 2023)\n"
        f"usage: rmploss VERB ...   (rmploss VERB --help: its flags)\n\n{verbs}\n\n{EXAMPLES}"
    )


def require_verb(word: str) -> None:
    """Raise `UserError`, with the nearest verb, for a first word that is none."""
    if word not in SUMMARIES:
        raise UserError("no such verb", [unknown("rmploss", word, SUMMARIES, "rmploss --help")])
