"""docs/dead.md: its network is dead without a norm and alive with one, and prints what is shown."""

import re
from pathlib import Path

import pytest

from rmploss import LIF

PAGE = (Path(__file__).parent.parent / "docs" / "dead.md").read_text(encoding="utf-8")


def test_the_example_prints_what_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (shown,) = re.findall(r"```\n(without a norm:.*?)```", PAGE, re.DOTALL)
    exec(code, {})
    printed = capsys.readouterr().out
    assert [*re.sub(r"[\d.]+", "#", printed)] == [*re.sub(r"[\d.]+", "#", shown)]
    for text in (printed, shown):
        rates = [float(rate) for rate in re.findall(r"rate ([\d.]+)", text)]
        assert rates[1:3] == [0, 0]
        assert min(rates[3:]) > 0.1


def test_the_surrogate_of_the_page_is_one() -> None:
    (name,) = re.findall(r'`LIF\(surrogate="(\w+)"\)`', PAGE)
    LIF(surrogate=name)
