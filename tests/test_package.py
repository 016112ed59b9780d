"""Every file of the working tree is tracked by git and installed."""

import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

import rmploss
from rmploss.ops import native

ROOT = Path(__file__).parent.parent


def sources(folder: Path) -> set[str]:
    """The files of the package, without those that Python and the compiler write."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder))
        for path in files
        if path.parent.name != "__pycache__" and path.suffix not in (".so", ".pyd")
    }


@pytest.mark.parametrize("folder", ["src/rmploss", "benchmarks/rmploss_bench"])
def test_every_file_of_a_package_is_tracked(folder: str) -> None:
    words = ["git", "-C", str(ROOT), "ls-files", "--", folder]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode or not done.stdout:
        pytest.skip("not a git work tree")
    tracked = {line.removeprefix(f"{folder}/") for line in done.stdout.splitlines()}
    assert sources(ROOT / folder) == tracked


@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler: no native kernels")
def test_the_native_kernels_are_built_where_a_compiler_is() -> None:
    assert native.MISSING is None
    assert native.instruction_sets()


def test_every_file_of_the_package_is_installed() -> None:
    assert sources(Path(rmploss.__file__).parent) == sources(ROOT / "src" / "rmploss")


def test_the_benchmarks_are_of_the_version_of_the_package_that_they_need() -> None:
    package, bench = (
        tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["project"]
        for folder in ("", "benchmarks")
    )
    assert bench["version"] == package["version"]
    assert bench["dependencies"] == [f"rmploss=={package['version']}"]
