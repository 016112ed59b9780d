"""The page is complete, escaped, self-contained, small and reproducible."""

import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from rmploss import recipes, report
from rmploss.errors import UserError
from rmploss.report.page import number
from tests.report.folders import WITH, WITHOUT, predicted, run_folder

VOID = {"meta", "br", "path", "rect", "line"}


class Outline(HTMLParser):
    """The text of a page, and whether every element that was opened is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text += data


def page(tmp_path: Path, *folders: Path) -> tuple[str, Outline]:
    out = tmp_path / "new" / "report.html"
    assert report.write(folders, out) == out
    source = out.read_text()
    outline = Outline()
    outline.feed(source)
    assert outline.open == []
    outline.text = re.sub(r"\s+", " ", outline.text)
    return source, outline


def pair(tmp_path: Path) -> list[Path]:
    return [
        run_folder(tmp_path, WITHOUT, accuracy=90.0, error=0.2),
        run_folder(tmp_path, WITH, accuracy=91.0, error=0.15),
    ]


def test_one_run(tmp_path: Path) -> None:
    command = ["rmploss", "train", "digits-rmp", "--runs-dir", "my runs"]
    source, seen = page(tmp_path, run_folder(tmp_path, command=command))
    assert "After 8 of 8 epochs the network is right on 90.00 % of the test split" in seen.text
    assert "accuracy, best epoch90.00 %in epoch 8" in seen.text
    assert "quantization error0.1500" in seen.text
    assert "No row of the paper: comparable with no published number." in seen.text
    assert "rmploss train digits-rmp --runs-dir 'my runs'" in seen.text
    assert "torch2.9.0" in re.sub(r"(?<=torch) ", "", seen.text)
    assert source.count("<svg") == 1 + 4 + 2  # the figure layer, the curves, all layers


def test_two_runs_are_reported_side_by_side(tmp_path: Path) -> None:
    source, seen = page(tmp_path, *reversed(pair(tmp_path)))
    assert "digits with and without RMP-Loss" in seen.text
    assert "RMP-Loss lowered the quantization error by 25 %" in seen.text
    assert re.search(r"accuracy, last epoch \(%\) 90.00 91.00 \+1.00", seen.text)
    assert re.search(r"quantization error 0.2000 0.1500 −0.0500", seen.text)
    assert source.count("<svg") == 2 + 4 + 2
    assert seen.text.index("without RMP-Loss. Layer lif2") < seen.text.index(
        "with RMP-Loss. Layer lif2"
    )


def test_seeds_of_one_recipe_give_mean_and_deviation(tmp_path: Path) -> None:
    seeds = [run_folder(tmp_path, WITH.but(seed=seed), accuracy=90.0 + seed) for seed in range(3)]
    _, seen = page(tmp_path, *seeds)
    assert "over 3 seeds" in seen.text
    assert "accuracy, last epoch91.00 ± 1.00 %3 seeds" in seen.text
    assert all(path.name in seen.text for path in seeds)


def test_the_published_numbers_of_an_unchanged_recipe(tmp_path: Path) -> None:
    recipe = recipes.get("cifar10-resnet20-rmp")
    _, seen = page(tmp_path, run_folder(tmp_path, recipe))
    assert (
        "Published in Table 1: 91.89 % and quantization error 0.121; in Table 2: 91.89 ± 0.05 %."
    ) in seen.text.replace("\xa0", " ")
    assert "no published number" not in seen.text


@pytest.mark.parametrize(
    ("recipe", "reason"),
    [
        (recipes.get("cifar10-resnet20-rmp-pocket"), "Pocket size: comparable with no published"),
        (
            recipes.get("cifar10-resnet20-rmp").but(epochs=9),
            "Differs from the recipe of that name in epochs: comparable with no published number",
        ),
    ],
)
def test_what_answers_to_no_published_number_says_so(
    tmp_path: Path, recipe: recipes.Recipe, reason: str
) -> None:
    _, seen = page(tmp_path, run_folder(tmp_path, recipe))
    assert reason in seen.text
    assert "Published in" not in seen.text


def test_a_run_from_python_tells_its_command_only_if_there_is_one(tmp_path: Path) -> None:
    _, known = page(tmp_path, run_folder(tmp_path, WITH.but(seed=5)))
    assert "rmploss train digits-rmp --seed 5" in known.text
    _, changed = page(tmp_path, run_folder(tmp_path, WITH.but(lr=0.7)))
    assert "Started from Python with the recipe below" in changed.text
    assert re.search(r"lr ?0\.7", changed.text)


def test_an_unfinished_run_renders_and_says_so(tmp_path: Path) -> None:
    source, seen = page(tmp_path, run_folder(tmp_path, epochs=3, finished=False))
    assert "After 3 of 8 epochs" in seen.text
    assert "not finished: 3 of 8 epochs; no histograms" in seen.text
    assert "There is no histogram to show." in seen.text
    assert source.count("<svg") == 4


def test_a_run_without_any_number_renders(tmp_path: Path) -> None:
    path = run_folder(tmp_path, finished=False)
    (path / "metrics.jsonl").unlink()
    (path / "events.jsonl").unlink()
    source, seen = page(tmp_path, path)
    assert "No epoch is completed yet." in seen.text
    assert "not finished: 0 of 8 epochs" in seen.text
    assert "<svg" not in source


def test_an_unfinished_run_beside_a_finished_one(tmp_path: Path) -> None:
    late = run_folder(tmp_path, WITH, epochs=0, finished=False)
    _, seen = page(tmp_path, run_folder(tmp_path, WITHOUT), late)
    assert "cannot be judged yet" in seen.text


def test_what_happened_on_the_way_is_reported(tmp_path: Path) -> None:
    events = [
        {"event": "interrupted", "step": 30},
        {
            "event": "resume",
            "step": 22,
            "ranks": 1,
            "rejected": ["step-30: damaged"],
            "command": [],
        },
        {"event": "non-finite", "epoch": 2, "step": 44, "non_finite": {"test_ce": "nan"}},
        {"event": "inexact", "why": "another machine"},
        {"event": "execute", "device": "cpu", "versions": {"torch": "2.9.0"}},
        {"event": "capture", "what": "training step", "captured": True},
    ]
    _, seen = page(tmp_path, run_folder(tmp_path, events=events))
    for text in (
        "stopped by a signal; step 30",
        "resumed; step 22; ranks 1; rejected step-30: damaged",
        "a number was NaN or infinite; epoch 2; step 44; non finite test_ce nan",
        "inexact; why another machine",
    ):
        assert text in seen.text
    assert "execute" not in seen.text  # no event of every run among the notes, no dictionary
    assert "captured" not in seen.text
    assert not re.search(r"\{'|\['", seen.text)
    assert re.search(r"device ?cpu", seen.text)


@pytest.mark.parametrize(
    ("changes", "heading", "listed"),
    [
        ({}, "A small ConvNet on scikit-learn's digits with RMP-Loss, T = 4", ""),
        (
            {"network": "resnet20", "T": 2},
            "ResNet20 on digits with RMP-Loss, T = 2",
            "The recipe digits-rmp, changed: network = resnet20.",
        ),
        (
            {"objective": "none", "epochs": 1},
            "Convnet on digits without RMP-Loss, T = 4",
            "The recipe digits-rmp, changed: objective = none, epochs = 1.",
        ),
        (
            {"lr": 0.5},
            "A small ConvNet on scikit-learn's digits with RMP-Loss, T = 4",
            "The recipe digits-rmp, changed: lr = 0.5.",
        ),
    ],
)
def test_the_heading_says_what_was_trained(
    changes: dict[str, Any], heading: str, listed: str, tmp_path: Path
) -> None:
    recipe = recipes.override(WITH, changes)
    _, seen = page(tmp_path, run_folder(tmp_path, recipe))
    assert heading in seen.text
    assert listed in seen.text
    assert ("changed:" in seen.text) == bool(listed)


def test_energy_and_images_per_second(tmp_path: Path) -> None:
    path = run_folder(tmp_path)
    (path / "cost.json").write_text('{"microjoules": 12.345}')
    _, seen = page(tmp_path, path)
    assert "energy of an inference, estimated12.35 µJ" in seen.text.replace("12.34 ", "12.35 ")
    speed = 22 * WITH.batch_size / 1.5  # steps and seconds of an epoch in tests.report.folders
    assert f"images per second, training{speed:.0f}" in seen.text


def test_classes_and_examples(tmp_path: Path) -> None:
    path = run_folder(tmp_path)
    before = page(tmp_path, path)[1].text
    assert "Classes" not in before
    assert "predictions.json" not in before  # a run of an earlier version lacks nothing
    (path / "predictions.json").write_text(json.dumps(predicted()))
    source, seen = page(tmp_path, path)
    assert re.search(r"cat ?10 ?90.0 ?dog", seen.text)
    assert re.search(r"dog ?10 ?100.0 ?–", seen.text)
    assert "cat, taken for dog (75 %)" in seen.text.replace("\xa0", " ")
    assert "cat, recognized (75 %)" in seen.text.replace("\xa0", " ")
    links = [value for _, held in seen.tags for name, value in held.items() if "href" in name]
    assert len(links) == 5 + 8
    assert all((link or "").startswith("data:image/png;base64,") for link in links)
    assert "img-src data:" in source


def test_the_figures_of_the_paper_are_named(tmp_path: Path) -> None:
    recipe = recipes.get("cifar10-resnet20-rmp")
    assert "with RMP-Loss, T = 4" in page(tmp_path, run_folder(tmp_path, recipe))[1].text
    text = page(tmp_path, run_folder(tmp_path, recipe, name="again"))[1].text
    assert "as in Figures 2 and 3. Layer lif2" in text
    assert "Figures 2 and 3. Layer" not in page(tmp_path, run_folder(tmp_path, WITH))[1].text


def test_every_figure_as_files(tmp_path: Path) -> None:
    folders = pair(tmp_path)
    (folders[1] / "predictions.json").write_text(json.dumps(predicted()))
    report.write(folders, tmp_path / "report.html", tmp_path / "new" / "figures")
    drawn = (tmp_path / "report.html").read_text().count("<svg")
    files = list((tmp_path / "new" / "figures").iterdir())
    assert len(files) == 3 * drawn
    assert {path.suffix for path in files} == {".svg", ".png", ".csv"}


def test_html_in_names_is_shown(tmp_path: Path) -> None:
    attack = "<script>alert(1)</script><img src=x onerror=alert(1)>"
    recipe = WITH.but(name=attack, title=attack)
    folders = [
        run_folder(tmp_path, recipe, name="<b>a&b", command=[attack]),
        run_folder(tmp_path, recipe.but(T=6), name="c", events=[{"event": attack, "x": attack}]),
    ]
    for chosen in (folders, folders[:1]):
        _, seen = page(tmp_path, *chosen)
        assert not {tag for tag, _ in seen.tags} & {"script", "img", "b&b"}
        assert attack in seen.text


def test_names_that_are_no_unicode_are_shown_by_their_escapes(tmp_path: Path) -> None:
    """A folder of a class, or of the run, whose name on the disk is in another encoding."""
    odd = os.fsdecode(b"caf\xe9")
    path = run_folder(tmp_path / odd, WITH, name=odd, command=["rmploss", odd])
    (path / "predictions.json").write_text(
        json.dumps(predicted() | {"classes": [odd, "d\x1b[2Jog"]})
    )
    _, seen = page(tmp_path, path)
    assert r"caf\udce9" in seen.text
    assert r"d\x1b[2Jog" in seen.text


def test_the_page_needs_nothing_from_elsewhere(tmp_path: Path) -> None:
    source, seen = page(tmp_path, *pair(tmp_path))
    assert not re.search(r"https?:|//[a-z]|url\(|@import|<script|javascript:", source)
    held = {name for _, attributes in seen.tags for name in attributes}
    assert not held & {"src", "href", "xlink:href", "srcset", "onload", "onclick"}
    assert "prefers-color-scheme: dark" in source


def test_the_same_folders_give_the_same_bytes_below_a_megabyte(tmp_path: Path) -> None:
    folders = pair(tmp_path)
    first, _ = page(tmp_path, *folders)
    second, _ = page(tmp_path, *folders)
    assert first == second
    assert len(first.encode()) < 1_000_000


def test_every_variable_of_the_style_sheet_is_defined(tmp_path: Path) -> None:
    source, _ = page(tmp_path, *pair(tmp_path))
    used = set(re.findall(r"var\((--[\w-]+)\)", source)) - {"--hue", "--points"}
    assert used <= set(re.findall(r"(--[\w-]+): ", source))


def test_a_folder_that_is_no_run_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    run_folder(tmp_path, name="digits-1")
    (tmp_path / "other").mkdir()
    out = tmp_path / "out" / "report.html"
    with pytest.raises(UserError) as caught:
        report.write([tmp_path / "digits-2", tmp_path / "other"], out)
    assert len(caught.value.problems) == 2
    assert f"did you mean {tmp_path / 'digits-1'}?" in str(caught.value)
    assert not out.parent.exists()
    with pytest.raises(UserError, match="no run folders"):
        report.write([], out)


@pytest.mark.parametrize(
    ("values", "digits", "sign", "text"),
    [
        (None, 4, "", "–"),
        ([], 4, "", "–"),
        (0.12345, 3, "", "0.123"),
        ([-0.5], 1, "", "−0.5"),
        (0.0, 2, "+", "+0.00"),
        (-0.3, 0, "+", "+0"),
        (-0.3, 0, "", "0"),
        ([1.0, 2.0, 3.0], 1, "", "2.0 ± 1.0"),
    ],
)
def test_numbers(values: float | list[float] | None, digits: int, sign: str, text: str) -> None:
    assert number(values, digits, sign) == text
