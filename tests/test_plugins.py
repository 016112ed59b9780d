"""Plug-ins: entries from modules, files and installed packages; and what a run records of them."""

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, ClassVar

import pytest

from rmploss import plugins, recipes, register
from rmploss.cli import main
from rmploss.data import DATASETS
from rmploss.data.digits import Digits
from rmploss.engine.origins import changed, origins
from rmploss.engine.run import RunFolder
from rmploss.errors import UserError
from rmploss.neurons import LIF, NEURONS
from rmploss.recipes import RECIPES, use
from rmploss.registry import Registry
from tests.engine.runs import TINY

PLUGIN = '''
"""Digits under another name."""

from dataclasses import dataclass
from typing import ClassVar

import rmploss
from rmploss.data.digits import Digits
from rmploss.recipes import get, use


@rmploss.register.dataset("pictures")
@dataclass(frozen=True, kw_only=True)
class Pictures(Digits):
    """The bundled digits again."""

    name: ClassVar[str] = "pictures"


rmploss.register.recipe(get("digits-rmp").but(name="pictures-rmp", data=use("pictures")))
'''
SMALL = ["--epochs", "1", "--train-samples", "32", "--test-samples", "32", "--batch-size", "16"]


@dataclass(frozen=True, kw_only=True)
class Mine(Digits):
    """Digits under another name."""

    name: ClassVar[str] = "mine"
    level: int


@pytest.fixture(autouse=True)
def nothing_remains(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every test begins and ends with the entries of the package alone."""
    registries: list[Registry[Any]] = [family.registry for family in register.FAMILIES.values()]
    for registry in (*registries, RECIPES):
        monkeypatch.setattr(registry, "_added", {})
    for name, empty in {"_named": [], "_done": set(), "_remembered": {}}.items():
        monkeypatch.setattr(plugins, name, empty)
    modules = {*sys.modules}
    yield
    for name in {*sys.modules} - modules:
        if str(getattr(sys.modules[name], "__file__", "")).startswith("/tmp"):
            del sys.modules[name]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, which holds the plug-in `pictures_plugin.py`."""
    (tmp_path / "pictures_plugin.py").write_text(PLUGIN, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Point:
    """An entry point of an installed package."""

    class dist:  # noqa: N801
        name = "their-package"

    def __init__(self, name: str, value: Any) -> None:
        self.name, self.value = name, str(value)
        self._entry = value

    def load(self) -> Any:
        if isinstance(self._entry, Exception):
            raise self._entry
        return self._entry


def install(monkeypatch: pytest.MonkeyPatch, *points: Point) -> None:
    monkeypatch.setattr(plugins, "_all_points", lambda: points)


NAMED = "[console_scripts]\nx = x:x\n\n[rmploss]\nneuron.theirs = theirs:Neuron\n"
OTHER = "[rmploss.more]\nneuron.theirs = theirs:Neuron\n[rmploss_bench]\nx = x:x\n"
INSTALLED = {
    "named": {"theirs-1.0.dist-info/entry_points.txt": NAMED},
    "named in an egg-info": {"Theirs.EGG-INFO/entry_points.txt": NAMED},
    "others": {"theirs-1.0.dist-info/entry_points.txt": OTHER, "a.egg-info": "", "b": NAMED},
    "nothing": {"theirs-1.0.dist-info/RECORD": NAMED},
}


@pytest.mark.parametrize("archived", [False, True], ids=["folder", "zip"])
@pytest.mark.parametrize("case", INSTALLED)
def test_what_is_installed_is_found_as_importlib_finds_it(
    case: str, archived: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / ("place.zip" if archived else "place")
    info = next(iter(INSTALLED[case])).partition("/")[0]
    names = {f"{info}/{file}": "Name: theirs\n" for file in ("METADATA", "PKG-INFO")}
    for name, text in {**INSTALLED[case], **names}.items():
        if archived:
            with zipfile.ZipFile(place, "a") as archive:
                archive.writestr(name, text)
        else:
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_text(text, encoding="utf-8")
    monkeypatch.setattr(sys, "path", [str(place), str(tmp_path / "absent")])
    expected = entry_points(group=plugins.GROUP)
    assert len(expected) == case.startswith("named")
    assert plugins._all_points.__wrapped__() == tuple(expected)
    assert plugins._may_be_named(sys.path) == (archived or bool(expected))


def test_an_egg_or_another_finder_may_have_entries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "theirs.egg").mkdir()
    assert plugins._may_be_named([str(tmp_path / "theirs.egg")])
    assert not plugins._may_be_named([str(tmp_path)])
    finder = type("Finder", (), {"find_distributions": None, "find_spec": lambda *_: None})
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, finder()])
    assert plugins._may_be_named([str(tmp_path)])


def test_every_family_of_a_recipe_is_open() -> None:
    from rmploss.engine.origins import TABLES

    registries = [family.registry for family in register.FAMILIES.values()]
    assert {id(table) for table in TABLES} == {id(registry) for registry in registries}
    for name, family in register.FAMILIES.items():
        assert family.registry.family == name


def test_an_entry_is_registered_and_used() -> None:
    assert register.dataset("mine", Mine) is Mine
    assert "mine" in DATASETS
    assert [*DATASETS][-1] == "mine"
    assert DATASETS.make("mine", level=3) == Mine(level=3)
    assert DATASETS.complete("mine", {}) == {"augment": True}
    (missing,) = DATASETS.problems("mine", {})
    assert (missing.where, missing.what) == ("data-set.level", "is missing")


def test_the_decorator() -> None:
    @register.neuron("mine")
    class Neuron(LIF):
        """As LIF."""

    assert NEURONS["mine"] is Neuron


def test_names_that_are_refused() -> None:
    with pytest.raises(UserError, match="is an entry of rmploss"):
        register.dataset("cifar10", Mine)
    with pytest.raises(UserError, match="is no name for a command line"):
        register.dataset("my set", Mine)
    register.dataset("mine", Mine)
    register.dataset("mine", Mine)  # once more is no clash
    with pytest.raises(UserError, match="Mine already"):
        register.dataset("mine", Digits)
    with pytest.raises(UserError, match="is an entry of rmploss"):
        register.recipe(TINY.but(name="digits"))


def test_entries_that_cannot_be_one() -> None:
    with pytest.raises(UserError, match="pass the class, not an instance"):
        register.dataset("mine", Mine(level=1))  # pyright: ignore[reportArgumentType]
    with pytest.raises(UserError, match="lacks 'open'"):
        register.dataset("mine", LIF)  # pyright: ignore[reportArgumentType]
    with pytest.raises(UserError, match="must be a Recipe"):
        register.recipe({})  # pyright: ignore[reportArgumentType]
    with pytest.raises(UserError, match=r"^bad register\.neuron\n"):
        register.neuron(LIF)  # pyright: ignore[reportCallIssue, reportArgumentType]


def test_options_by_position_are_named() -> None:
    class Neuron(LIF):
        """With an option that no recipe can give."""

        def __init__(self, channels: int | None = None, step: float = 0.1) -> None:
            super().__init__(channels)

    register.neuron("mine", Neuron)
    (problem,) = NEURONS.problems("mine", {"step": 0.2})
    assert problem.what == "is a parameter by position; options are keyword-only"


def test_entries_of_an_installed_package(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, Point("dataset.theirs", Mine), Point("neuron.mine", LIF))
    assert "theirs" in DATASETS
    assert "theirs" in [*DATASETS]
    assert DATASETS["theirs"] is Mine
    assert origins(TINY.but(neuron=use("mine")))[0]["package"] == "their-package"


def test_broken_entries_are_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(monkeypatch, Point("neuron.broken", ImportError("no module\nnamed x")))
    with pytest.raises(UserError) as caught:
        _ = NEURONS["broken"]
    (problem,) = caught.value.problems
    assert problem.where == "neuron.broken of their-package"
    assert problem.what.startswith("ImportError: no module")
    assert "named x" not in problem.what
    assert main(["list", "neurons"]) == 0
    assert "cannot be used: neuron.broken of their-package: Imp" in capsys.readouterr().out


def test_installed_entries_with_a_name_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, Point("neuron.lif", LIF))
    assert NEURONS["lif"] is LIF  # it is not looked for
    with pytest.raises(UserError, match="is a name of rmploss"):
        _ = [*NEURONS]
    install(monkeypatch, Point("neuron.x", LIF), Point("neuron.x", Mine))
    with pytest.raises(UserError, match="is a name of their-package"):
        _ = NEURONS["x"]


def test_nothing_is_imported_for_a_name_of_ours(place: Path) -> None:
    plugins.use(["no_such_module"])
    assert NEURONS["lif"] is LIF
    assert RECIPES["digits"].name == "digits"
    with pytest.raises(UserError, match="No module named 'no_such_module'"):
        _ = "mine" in NEURONS
    with pytest.raises(UserError, match="No module named 'no_such_module'"):
        _ = [*NEURONS]  # again: it is not forgotten


@pytest.mark.parametrize("named", ["pictures_plugin", "pictures_plugin.py"])
def test_a_plug_in_by_module_and_by_file(place: Path, named: str) -> None:
    plugins.use([named])
    assert "pictures" in DATASETS
    assert recipes.get("pictures-rmp").data == use("pictures")


def test_a_plug_in_by_the_variable(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(plugins.VARIABLE, " pictures_plugin ,")
    assert "pictures" in [*DATASETS]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import no_such_package", "ModuleNotFoundError: No module named 'no_such_package'"),
        ("x = (", "SyntaxError: '(' was never closed"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("import rmploss; rmploss.register.neuron('lif', int)", "is an entry of rmploss"),
    ],
)
@pytest.mark.parametrize("suffix", ["", ".py"])
def test_a_broken_plug_in(
    place: Path, text: str, message: str, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "broken_plugin.py").write_text(text, encoding="utf-8")
    assert main(["list", "data", "--import", f"broken_plugin{suffix}"]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert "broken_plugin" in err
    assert "Traceback" not in err
    assert len(err.splitlines()) == 2


@pytest.mark.parametrize("words", [["--import"], ["--import", "--json"], ["--import="]])
def test_import_without_a_module(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", *words]) == 2
    assert "--import: names no module" in capsys.readouterr().err


def test_a_file_beside_a_module_of_its_name(place: Path) -> None:
    (place / "json.py").write_text("", encoding="utf-8")
    plugins.use(["json.py"])
    with pytest.raises(UserError, match="give the file another name"):
        _ = "x" in DATASETS


def rmploss(*words: str) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own."""
    package = Path(__import__("rmploss").__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(package), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "rmploss", *words]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=120
    )


def test_a_run_in_other_processes(place: Path) -> None:
    done = rmploss("train", "pictures-rmp", "--import", "pictures_plugin.py", *SMALL, "--name", "a")
    assert done.returncode == 0, done.stderr
    file = place / "pictures_plugin.py"
    (record,) = json.loads((place / "runs/a/recipe.json").read_text())["plugins"]
    assert (record["family"], record["name"], record["file"]) == ("dataset", "pictures", str(file))
    with zipfile.ZipFile(place / "runs/a/source.zip") as archive:
        assert archive.read("plugins/pictures_plugin.py").decode() == PLUGIN

    for verb in ("verify", "report"):  # these need no data
        done = rmploss(verb, "runs/a")
        assert done.returncode == 0, done.stderr
    done = rmploss("eval", "runs/a")
    assert done.returncode == 2
    assert f'unknown "pictures"   add --import {file}' in done.stderr
    done = rmploss("eval", "runs/a", "--import", str(file), "--workers", "1")
    assert done.returncode == 0, done.stderr
    assert "32 test samples" in done.stdout
    done = rmploss("train", "--fork", "runs/a", "--epochs", "2", "--import=pictures_plugin")
    assert done.returncode == 0, done.stderr

    file.rename(place / "moved.py")
    done = rmploss("eval", "runs/a")
    assert "which is not there any more" in done.stderr


def test_a_changed_file_is_told() -> None:
    register.dataset("mine", Mine)
    recipe = TINY.but(data=use("mine", level=1))
    (record,) = origins(recipe)
    assert changed(recipe, [record]) == []
    (sentence,) = changed(recipe, [{**record, "sha256": "0"}])
    assert sentence == f"dataset mine: {__file__} is not as it was when the run began"


def test_names_in_options_are_recorded() -> None:
    register.schedule("mine", float)
    (record,) = origins(TINY.but(objective=use("rmp", schedule="mine")))
    assert (record["family"], record["name"]) == ("schedule", "mine")


@pytest.mark.parametrize("stored", [None, {}, [1], [{"family": 1}], [{"name": "x"}]])
def test_damaged_records_say_nothing(tmp_path: Path, stored: object) -> None:
    folder = RunFolder.create(tmp_path, "x", TINY.to_json(), command=[])
    document = json.loads((folder.path / "recipe.json").read_text())
    (folder.path / "recipe.json").write_text(json.dumps(document | {"plugins": stored}))
    assert RunFolder.open(folder.path).recipe() == TINY
    assert folder.plugged() == []
