"""The environment of a run is recorded, also without git or an optional package."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from rmploss.engine import environment


def test_the_record_is_json_and_names_what_decides_the_numbers() -> None:
    record = environment.environment()
    assert json.loads(json.dumps(record)) == record
    assert record["torch"] == torch.__version__
    assert record["threads"] == torch.get_num_threads()
    assert record.items() >= environment.versions().items()


def test_a_missing_package_is_no_failure() -> None:
    assert environment._version("no-such-package-anywhere") == "not installed"


def git(folder: Path, *words: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    command = ["git", *identity, "-C", str(folder), *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.skipif(not shutil.which("git"), reason="needs git")
def test_the_commit_is_that_of_the_package_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    monkeypatch.setattr(environment, "_PACKAGE", package)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert environment._commit() is None

    git(tmp_path, "init")
    (tmp_path / "other").write_text("")
    git(tmp_path, "add", "other")
    git(tmp_path, "commit", "-m", "somebody else's")
    assert environment._commit() is None

    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "ours")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert environment._commit() == commit
    (package / "__init__.py").write_text("changed")
    assert environment._commit() == f"{commit}-dirty"

    monkeypatch.setenv("PATH", str(tmp_path))
    assert environment._commit() is None
