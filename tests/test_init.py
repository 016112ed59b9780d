"""The public names: importable, documented, and imported on first use."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import rmploss
from rmploss import functional, models, neurons, norm, objectives, recompute, stats


def test_the_public_names() -> None:
    assert rmploss.LIF is neurons.LIF
    assert rmploss.IF is neurons.IF
    assert rmploss.Accumulator is neurons.Accumulator
    assert rmploss.TDBatchNorm2d is norm.TDBatchNorm2d
    assert rmploss.RMPLoss is objectives.RMPLoss
    assert rmploss.membrane_stats is stats.membrane_stats
    assert rmploss.checkpoint is recompute.checkpoint
    assert rmploss.functional is functional
    assert rmploss.models is models


@pytest.mark.parametrize("name", rmploss.__all__)
def test_every_public_name_exists_and_is_documented(name: str) -> None:
    assert getattr(rmploss, name).__doc__
    assert name in dir(rmploss)


def test_a_name_that_does_not_exist() -> None:
    with pytest.raises(AttributeError, match="'rmploss' has no attribute 'LIFE'"):
        _ = rmploss.LIFE


def test_the_package_itself_imports_no_torch() -> None:
    code = "import sys, rmploss; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_version_is_that_of_the_project() -> None:
    project = Path(__file__).parent.parent / "pyproject.toml"
    assert tomllib.loads(project.read_text("utf-8"))["project"]["version"] == rmploss.__version__
