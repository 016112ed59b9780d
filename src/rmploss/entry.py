"""`entry`: a method of a module that users and tools call; `Untraceable`: what no tool compiles.

A call that works costs one more frame. A wrong one raises `UserError` with what to type instead,
not Python's `TypeError`. torch.fx records a module whose `forward` is an entry as one node.
"""

import inspect
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, NoReturn, ParamSpec, TypeVar

import torch
from torch import Tensor

from rmploss.arguments import problems_of_call
from rmploss.errors import Problem, UserError, not_scriptable

P = ParamSpec("P")
R = TypeVar("R")


def entry(method: Callable[P, R]) -> Callable[P, R]:
    """The method; a call that its signature does not allow raises `UserError`."""
    is_forward = method.__name__ == "forward"

    @wraps(method)
    def run(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():
            return call(self, *args, **kwargs)
        if type(args) is not tuple:  # torch.fx calls the root of a trace so
            raise _no_root(self)
        given = args[0] if args else next(iter(kwargs.values()), None)
        if type(given) is not Tensor and is_proxy(given):
            return _node(self, is_forward, given, args, kwargs)
        try:
            return call(self, *args, **kwargs)
        except TypeError:
            problems = problems_of_call(method, (self, *args), kwargs)
            if not problems:
                raise
            _refuse_onnx_without_export(self)
            raise UserError(f"bad call of {type(self).__name__}", problems) from None

    call: Any = method
    entered: Any = run
    # Not `__wrapped__`: torch.fx would count the arguments of the one and call the other.
    del entered.__wrapped__
    entered.__signature__ = inspect.signature(method)
    return entered


def is_proxy(value: object) -> bool:
    """True for what torch.fx.symbolic_trace passes in the place of a tensor."""
    fx: Any = sys.modules.get("torch.fx")
    return fx is not None and isinstance(value, fx.Proxy)


def _node(module: Any, is_forward: bool, proxy: Any, args: Any, kwargs: Any) -> Any:
    """The module as one node of the graph that is traced; `UserError` for the root of a trace."""
    path = proxy.tracer.path_of_module(module) if is_forward else ""
    if not path:
        raise _no_root(module)
    return proxy.tracer.create_proxy("call_module", path, args, kwargs)


def _no_root(module: object) -> UserError:
    """The error for a trace by torch.fx that begins with this module."""
    what = "is one node of torch.fx, in a model that contains it"
    fix = "symbolic_trace(nn.Sequential(net)); its layers: torch.export.export(net, (x,))"
    return UserError("torch.fx cannot look inside", [Problem(type(module).__name__, what, fix)])


def _refuse_onnx_without_export(module: object) -> None:
    """Raise `UserError` in the exporter of ONNX that passes options by place."""
    if torch._C._get_tracing_state() is None:
        return
    what = "is called by torch.onnx.export(dynamo=False) with options that have no place"
    fix = "torch.onnx.export(..., dynamo=True)"
    raise UserError("not this exporter", [Problem(type(module).__name__, what, fix)])


class Untraceable:
    """A part of a model that torch.jit.script cannot compile, and says what can."""

    def __prepare_scriptable__(self) -> NoReturn:
        raise not_scriptable(type(self).__name__)
