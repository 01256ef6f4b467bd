"""The size of classes: a class with a large interface does more than one thing."""

import ast
from collections.abc import Iterator
from pathlib import Path

import ticketctl

MOST = 12
HOME = Path(ticketctl.__file__).parent


def classes() -> Iterator[tuple[str, int]]:
    """Return each class of the package with the number of its public methods and properties."""
    for path in sorted(HOME.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                defined = {f.name for f in node.body if isinstance(f, ast.FunctionDef | ast.AsyncFunctionDef)}
                public = [name for name in defined if not name.startswith("_")]
                yield f"{path.relative_to(HOME)}: {node.name}", len(public)


def test_no_class_offers_too_much() -> None:
    """No class has more than 12 public methods and properties."""
    counted = dict(classes())
    assert counted["deployments/regional_stack.py: RegionalStack"] > 0
    assert {name: public for name, public in counted.items() if public > MOST} == {}
