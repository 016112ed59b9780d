"""The paper's tables beside the results in run folders."""

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rmploss import recipes
from rmploss.engine.after_training import COST, MEMBRANE
from rmploss.engine.build import resolve
from rmploss.engine.run import RunFolder
from rmploss.engine.run_summary import summarize
from rmploss.engine.verify import is_run, record_damages
from rmploss.errors import Problem, UserError
from rmploss.recipes import METHODS, Recipe
from rmploss.recipes.fair import PREFIX, WITH_RMP
from rmploss.report.read import ERRORS, input_errors, microjoules
from rmploss.report.recorded import Recorded

Values = dict[str, float]
"""The results of one finished run."""


@dataclass(frozen=True)
class SeedSummary:
    """Results of the finished runs of one recipe: mean and standard deviation over seeds, as text.

    seeds: the number of runs.
    last, best: accuracy of the last and of the best epoch, in percent.
    error: quantization error, dimensionless.
    rate: spikes per neuron and step.
    energy: of one inference, in microjoules; "" without cost.json (`rmploss train --resume` adds
        it).
    seconds: CPU time of training over all threads; "" if not recorded.
    accuracy: the mean of `last`, for sorting.
    readings: the quantization error of u_pre and of the input current, each as the mean of the
        layers' means and as the mean of all values; "" where a run lacks it.
    """

    seeds: int
    last: str
    best: str
    error: str
    rate: str
    energy: str
    seconds: str
    accuracy: float
    readings: tuple[str, str, str, str]


@dataclass(frozen=True)
class Line:
    """One row of a table.

    method, recipe: their titles and names.
    T: time steps.
    published, published_error: accuracy in percent and quantization error of the paper, or "".
    ours: our results; None: not run.
    command: the command that runs the recipe.
    damaged: the number of its finished runs whose record is damaged; `ours` leaves them out.
    reservation: why the row says little about the method, or "".
    recorded: the files that hold `ours`; empty: it is of runs in the folder of runs.
    """

    method: str
    recipe: str
    T: int
    published: str
    published_error: str
    ours: SeedSummary | None
    command: str
    damaged: int = 0
    reservation: str = ""
    recorded: tuple[str, ...] = ()


def table(
    number: int, runs_dir: Path, *, pocket: bool = False, results: Path | None = None
) -> list[Line]:
    """The rows of a table of the paper, all methods.

    number: of the table, 1 to 4.
    runs_dir: the folder of run folders.
    pocket: the pocket variants of its recipes, without the published numbers.
    results: a folder of CSV files with results of recipes that have no finished run; None: none.
    Raises `UserError` for another number.
    """
    rows = [(m, row) for m in METHODS.values() for row in m.rows if row.table == number]
    if not rows:
        numbers = ", ".join(map(str, sorted({row.table for row in recipes.ROWS})))
        raise UserError(f"no table {number}; there are {numbers} and fair")
    runs, damaged = _finished_runs(runs_dir)
    earlier = Recorded.read(results) if results else Recorded({})
    lines = []
    for method, row in rows:
        name = row.recipe + recipes.SUFFIX if pocket else row.recipe
        recipe = row.with_T(recipes.get(name))
        error = "" if row.error is None else f"{row.error:.3f}"
        mark = resolve(recipe).fingerprint()
        ours, files = _of_seeds(runs[mark], recipe, earlier)
        lines.append(
            Line(
                method=METHODS[_card(method.name, recipe)].title,
                recipe=name,
                T=row.T,
                published="" if pocket else row.words,
                published_error="" if pocket else error,
                ours=ours,
                command=_command(recipe, f" --T {row.T}"),
                damaged=damaged[mark],
                reservation=method.unlearnt.get(row.recipe, ""),
                recorded=files,
            )
        )
    return lines


def _command(recipe: Recipe, flags: str = "") -> str:
    """The command that runs a recipe; one that starts from an ANN loops over seeds."""
    ann = recipe.start.options.get("ann")
    if ann is None:
        return f"rmploss train {recipe.name}{flags} --seed 0 1 2"
    start = f"--start runs/{ann}-s$s-*"
    return (
        f"for s in 0 1 2; do rmploss train {ann} --seed $s && "
        f"rmploss train {recipe.name}{flags} --seed $s {start}; done"
    )


def fair_table(runs_dir: Path, *, pocket: bool = False, results: Path | None = None) -> list[Line]:
    """Every method on one protocol, with and without RMP-Loss, sorted by accuracy.

    runs_dir, pocket, results: see `table`.
    """
    runs, damaged = _finished_runs(runs_dir)
    earlier = Recorded.read(results) if results else Recorded({})
    lines = []
    for recipe in recipes.FAIR:
        name = recipe.name + recipes.SUFFIX if pocket else recipe.name
        recipe = recipes.get(name)
        short = recipe.name.removeprefix(PREFIX).removesuffix(recipes.SUFFIX)
        method = METHODS[short.removesuffix(WITH_RMP)]
        mark = resolve(recipe).fingerprint()
        ours, files = _of_seeds(runs[mark], recipe, earlier)
        lines.append(
            Line(
                method=method.title + (" + RMP-Loss" if short.endswith(WITH_RMP) else ""),
                recipe=name,
                T=recipe.T,
                published="",
                published_error="",
                ours=ours,
                command=_command(recipe),
                damaged=damaged[mark],
                reservation=method.reservation,
                recorded=files,
            )
        )
    return sorted(lines, key=lambda line: -line.ours.accuracy if line.ours else 1)


def _of_seeds(
    runs: dict[int, Values], recipe: Recipe, earlier: Recorded
) -> tuple[SeedSummary | None, tuple[str, ...]]:
    """The results of a recipe: of its runs, else those recorded earlier and their files."""
    if runs:
        return _summarize_seeds(runs), ()
    found, files = earlier.of(recipe)
    return _summarize_seeds(found), files


def _card(method: str, recipe: Recipe) -> str:
    """The card of a row: the rows of Table 1 without RMP-Loss stand on its card."""
    return "vanilla" if method == "rmp" and recipe.objective.name == "none" else method


def _finished_runs(runs_dir: Path) -> tuple[dict[str, dict[int, Values]], Counter[str]]:
    """The results of finished runs, and how many runs of a recipe have a damaged record.

    Fingerprint of a recipe -> seed -> the results of its (newest) finished run.
    """
    if runs_dir.exists() and not runs_dir.is_dir():
        raise UserError(f"{runs_dir} is not a folder of runs")
    runs: dict[str, dict[int, Values]] = defaultdict(dict)
    damaged: Counter[str] = Counter()
    for folder in _folders(runs_dir):
        try:
            recipe = folder.recipe()
            mark = resolve(recipe).fingerprint()
        except UserError:
            continue  # of another version, or damaged: see `damaged_runs`
        wrong = {damage.file for damage in record_damages(folder.path)}
        events = folder.events()
        if any(event["event"] == "damaged" for event in events) or wrong & {
            "metrics.jsonl",
            "events.jsonl",
            "result.json",
            "manifest.json",
        }:
            damaged[mark] += 1
            continue
        metrics, altered = folder.metrics(), any(event.get("altered") for event in events)
        if metrics and metrics[-1]["epoch"] == recipe.epochs and not altered:
            cost = {} if COST in wrong else microjoules(folder.path)
            errors = {} if MEMBRANE in wrong else input_errors(folder.path)
            runs[mark][recipe.seed] = {**summarize(metrics), **cost, **errors}
    return runs, damaged


def unreadable_runs(runs_dir: Path) -> list[Problem]:
    """The run folders whose recipe this version cannot read, and why. No table counts them."""
    problems: list[Problem] = []
    for folder in _folders(runs_dir):
        try:
            resolve(folder.recipe())
        except UserError as error:
            causes = error.problems or (Problem("", error.title),)
            problems += [Problem(f"{folder.path}: {p.where}", p.what, p.fix) for p in causes]
    return problems


def damaged_runs(runs_dir: Path) -> list[Problem]:
    """The damaged files among those that tables read, of all run folders; and altered records."""
    problems: list[Problem] = []
    for folder in _folders(runs_dir):
        problems += [damage.problem(folder.path) for damage in record_damages(folder.path)]
        damaged = [event for event in folder.events() if event["event"] == "damaged"]
        lost = [what for event in damaged for what in _words(event)]
        problems += [Problem(str(folder.path), f"was damaged and went on: {what}") for what in lost]
    return problems


def _words(event: Mapping[str, object]) -> list[str]:
    """What an event of kind "damaged" says was lost."""
    files = event.get("files")
    return [str(file) for file in files] if isinstance(files, list) else ["its record"]


def _folders(runs_dir: Path) -> Iterator[RunFolder]:
    """The run folders in a folder, by name, those without their recipe.json as well."""
    if runs_dir.is_dir():
        yield from (RunFolder(path) for path in sorted(runs_dir.iterdir()) if is_run(path))


def _summarize_seeds(by_seed: dict[int, Values]) -> SeedSummary | None:
    if not by_seed:
        return None

    def values(field: str) -> list[float]:
        return [summary[field] for summary in by_seed.values() if field in summary]

    return SeedSummary(
        len(by_seed),
        _spread(values("last_accuracy"), 2),
        _spread(values("best_accuracy"), 2),
        _spread(values("quantization_error"), 4),
        _spread(values("firing_rate"), 3),
        _spread(values("microjoules"), 1),
        _spread(values("train_cpu_s"), 0),
        statistics.mean(values("last_accuracy")),
        tuple(_spread(values(f"{of}{name}"), 4) for of in ("", "input_") for name in ERRORS),  # pyright: ignore[reportArgumentType]
    )


def _spread(values: Sequence[float], digits: int) -> str:
    """Mean and standard deviation over seeds."""
    if not values:
        return ""
    mean = f"{statistics.mean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.{digits}f}"
