"""The full names behind expressions: `t.save` is `torch.save` after `import torch as t`."""

import ast
from collections.abc import Callable


def full_names(tree: ast.AST) -> Callable[[ast.expr], str]:
    """A function from an expression to its dotted name, through imports, assignments and getattr.

    An expression that is not a name gets "".
    """
    known: dict[str, str] = {}

    def name(node: ast.expr) -> str:
        match node:
            case ast.Name():
                return known.get(node.id, node.id)
            case ast.Attribute():
                owner = name(node.value)
                return f"{owner}.{node.attr}" if owner else ""
            case ast.Call(
                func=ast.Name(id="getattr"), args=[of, ast.Constant(value=str(word)), *_]
            ):
                return f"{name(of)}.{word}"
            case ast.Call(args=[ast.Constant(value=str(word)), *_]) if name(node.func) in IMPORTERS:
                return word
        return ""

    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.asname:
                    known[alias.asname] = alias.name
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                known[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    for _ in range(3):  # names of names of names
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign) and (value := name(node.value)):
                known.update({t.id: value for t in node.targets if isinstance(t, ast.Name)})
    return name


IMPORTERS = {"__import__", "importlib.import_module", "import_module"}
