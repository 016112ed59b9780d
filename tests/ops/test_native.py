"""The native module: one of another version is refused by name, and nothing is read unchecked."""

import pytest
import torch

from rmploss.ops import native

pytestmark = pytest.mark.skipif(native.MISSING is not None, reason=str(native.MISSING))


@pytest.mark.parametrize("record", list(native.FIELDS))
@pytest.mark.parametrize("change", ["a field more", "a field less", "another name"])
def test_a_module_of_another_version_is_refused(
    record: str, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, *rest = native.FIELDS[record]
    changed = {
        "a field more": ("speed", first, *rest),
        "a field less": (*rest,),
        "another name": ("speed", *rest),
    }[change]
    monkeypatch.setitem(native.FIELDS, record, changed)
    module, missing = native._load()
    assert module is None
    assert missing is not None
    assert f"{record} of another version" in missing
    assert "reinstall" in missing


@pytest.mark.parametrize("name", ["SURROGATES", "RESETS"])
def test_a_module_that_lacks_an_equation_is_refused(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, name, ("Another",))
    assert "of another version" in str(native._load()[1])


def test_a_field_that_does_not_exist_is_an_error() -> None:
    assert native.module.layer(steps=4).steps == 4
    with pytest.raises(TypeError, match="unknown field"):
        native.module.layer(step=4)
    with pytest.raises(RuntimeError):  # bad cast
        native.module.layer(steps="four")


def test_an_array_that_is_not_dense_has_no_address() -> None:
    x = torch.zeros(4, 6)
    assert native.address(x, torch.float32) == x.data_ptr()
    assert native.address(None, torch.float32) == native.address(x[:0], torch.float32) == 0
    for wrong in (x[:, ::2], x.double(), x.to("meta"), x.t()):
        with pytest.raises(ValueError, match="a dense"):
            native.address(wrong, torch.float32)
    with pytest.raises(ValueError, match="a dense"):
        native.map_address(torch.zeros(1, 3, 4, 4))
