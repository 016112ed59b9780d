"""Results as rows and tables."""

import csv
from pathlib import Path

import pytest
from rich.console import Console

from rmploss_bench import hardware, rows, scale, table
from rmploss_bench.rows import FIELDS, Race
from rmploss_bench.timing import Result
from tests.benchmarks.kits import tiny

STEP = "step (s)"
RACE = Race(
    tiny(),
    "seeded noise",
    [
        Result("rmploss", STEP, (1.0, 3.0, 2.0), "green"),
        Result("dense-bound", STEP, (1.0, 1.0, 1.0), "green"),
        Result("spikingjelly", STEP, (8.0, 8.0, 9.0), "green"),
        Result("norse", STEP, (), "not installed: pip install './benchmarks[peers]'"),
    ],
)


def test_ratios_are_of_medians() -> None:
    first, _, _, absent = rows.rows([RACE], "rmploss bench")
    assert tuple(first) == tuple(sorted(first, key=[*first].index))
    assert set(first) == set(FIELDS)
    assert (first["median"], first["min"], first["max"], first["repeats"]) == ("2", "1", "3", "3")
    assert (first["ratio_to_spikingjelly"], first["ratio_to_dense"]) == ("0.25", "2")
    assert (absent["median"], absent["ratio_to_dense"]) == ("", "")
    assert absent["gate"].startswith("not installed")


def test_without_the_rival_there_is_no_ratio() -> None:
    alone = Race(tiny(), "", [RACE.results[0], Result("spikingjelly", STEP, (), "gate red: x")])
    assert rows.rows([alone], "")[0]["ratio_to_spikingjelly"] == ""


def test_the_file_says_what_it_was_measured_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "processor", lambda: "AMD EPYC")
    monkeypatch.setattr(hardware, "cpus", lambda: 2)
    path = rows.write(tmp_path / "new", "step", [RACE], "rmploss bench step")
    assert path.name == "step-resnet20-2xEPYC.csv"
    with path.open() as lines:
        read = [*csv.DictReader(lines)]
    assert [row["contestant"] for row in read] == [r.contestant for r in RACE.results]
    assert read[0]["hardware"] == "2x AMD EPYC"


@pytest.mark.parametrize(
    ("model", "label"),
    [
        ("AMD EPYC", "4xEPYC"),
        ("Intel(R) Xeon(R) Platinum 8375C CPU @ 2.90GHz", "4xXeon-Platinum-8375C"),
        ("AMD EPYC 9654 96-Core Processor", "4xEPYC-9654"),
        ("", "4xunknown"),
    ],
)
def test_labels_of_hardware(model: str, label: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "processor", lambda: model)
    monkeypatch.setattr(hardware, "cpus", lambda: 4)
    assert hardware.label("cpu") == label


def printed(shown: object) -> str:
    console = Console(width=160)
    with console.capture() as out:
        console.print(shown)
    return out.get()


def test_a_table_shows_figures_ratios_and_reasons() -> None:
    text = printed(table.table(RACE))
    first, last = text.splitlines()[1], text.splitlines()[4]
    assert first.split() == ["rmploss", "2", "1", "3", "0.25", "2.00", "green"]
    assert "pip install './benchmarks[peers]'" in last
    assert "- " in last


def test_a_grid_has_a_column_per_contestant() -> None:
    text = printed(table.grid({"T=1": RACE.results, "T=2": RACE.results[:1]}))
    assert text.splitlines()[1].split() == ["T=1", "2000", "1000", "8000", "-"]
    assert text.splitlines()[2].split() == ["T=2", "2000"]
    assert table.reasons(RACE.results) == [f"norse: {RACE.results[3].status}"]


def test_digits_of_figures() -> None:
    assert table.figure(3 * 2**20, "memory (bytes)") == "3.0 MiB"
    assert table.figure(1234.56, "eval (images/s)") == "1,234.6"


def test_scale_varies_one_thing_at_a_time() -> None:
    base = tiny(T=4, batch=8)
    variations = [*scale.variations(base)]
    for varied in variations:
        fields, usual = varied.as_dict(), base.as_dict()
        assert sum(fields[name] != usual[name] for name in fields) <= 1
    assert len({*variations}) == len(variations)
