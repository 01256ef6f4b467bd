"""The handler as the code of an inlined function, which has no asset."""

import ast

from ticketctl.handler import bundle_root


def inline_code() -> str:
    """The handler without its comments."""
    handler = bundle_root() / "lambda" / "create_ticket.py"
    return without_comments(handler.read_text(encoding="utf-8"))


def without_comments(source: str) -> str:
    """The code of a module without its docstrings, comment lines and blank lines, indented by one space per level.

    An inlined function counts against the 51,200 bytes of a template; the CDK CLI sends it as YAML, which indents
    each line once more. The rest of a line stays as it is, so that the result is the same with every version of
    Python. The source has no other strings of several lines.
    """
    lines = source.splitlines()
    texts = {
        number
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for number in range(node.lineno - 1, node.end_lineno or node.lineno)
    }
    kept = [line for number, line in enumerate(lines) if number not in texts]
    code = [(len(line) - len(line.lstrip()), line.lstrip()) for line in kept if line.strip()]
    return "".join(f"{' ' * (depth // 4)}{text}\n" for depth, text in code if not text.startswith("#"))
