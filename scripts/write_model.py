"""Write the methods of ``Model`` from those of ``AsyncModel``, and its requests; a test fails when they are stale.

A method of ``Model`` has the signature and the docstring of its twin. It runs the twin on the thread of the model's
event loop, and blocks until it returns.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

INPROCESS = Path(__file__).parent.parent / "src" / "modelyard" / "inprocess"
# What is written -> what it is written from.
TWINS = {
    INPROCESS / "model.py": INPROCESS / "async_model.py",
    INPROCESS / "blocking_requests.py": INPROCESS / "async_requests.py",
}

END = "    # End of the generated methods\n"

# Methods of AsyncModel that Model lacks, or has in a form of its own.
_NOT_GENERATED = frozenset(
    {"aclose", "agent", "async_openai_client", "load_progress", "mcp", "start", "start_with_tools", "yard"}
)

_Method = ast.FunctionDef | ast.AsyncFunctionDef


def render(path: Path) -> str:
    """Return a module of ``TWINS`` with its methods generated again. The formatter has yet to break long lines."""
    twin = TWINS[path]
    begin = f"    # Generated from {twin.name} by `make docs`\n"
    head, _, rest = path.read_text("utf-8").partition(begin)
    _, _, tail = rest.partition(END)
    methods = "\n".join(_methods(twin.read_text("utf-8")))
    return f"{head}{begin}\n{methods}\n{END}{tail}"


def _methods(source: str) -> Iterator[str]:
    lines = source.splitlines(keepends=True)
    (twin,) = (node for node in ast.parse(source).body if isinstance(node, ast.ClassDef))
    methods = [node for node in twin.body if isinstance(node, _Method)]
    names = {method.name for method in methods}
    for method in methods:
        if method.name in _NOT_GENERATED or method.name.startswith("_"):
            continue
        docstring = method.body[0]
        signature = "".join(lines[method.lineno - 1 : docstring.lineno - 1])
        head = signature.replace("async def", "def")
        head = re.sub(r"Async(\w+Stream)", r"\1", head)
        documentation = "".join(lines[docstring.lineno - 1 : docstring.end_lineno])
        if f"{method.name}_with_model" in names:
            body = ast.unparse(method.body[-1]).replace("await ", "")
        else:
            body = _blocking_call(method)
        if _is_property(method):
            head = f"    @property\n{head}"
        yield f"{head}{documentation}        {body}\n"


def _is_property(method: _Method) -> bool:
    return any(isinstance(each, ast.Name) and each.id == "property" for each in method.decorator_list)


def _blocking_call(method: _Method) -> str:
    """Return the statement that runs ``method`` of the twin on its event loop."""
    arguments = [argument.arg for argument in method.args.args[1:]]
    arguments += [f"{argument.arg}={argument.arg}" for argument in method.args.kwonlyargs]
    if method.args.kwarg is not None:
        arguments.append(f"**{method.args.kwarg.arg}")
    call = f"lambda twin: twin.{method.name}({', '.join(arguments)})"
    assert method.returns is not None
    returned = ast.unparse(method.returns)
    if returned.endswith("Stream"):
        return f"return {returned.removeprefix('Async')}(self, self.thread, {call})"
    if _is_property(method):
        call = f"lambda twin: twin.{method.name}"
    run = "call" if isinstance(method, ast.AsyncFunctionDef) else "call_sync"
    return f"{'' if returned == 'None' else 'return '}self.thread.{run}({call})"


if __name__ == "__main__":
    for path in TWINS:
        path.write_text(render(path), "utf-8")
        subprocess.run([sys.executable, "-m", "ruff", "format", "--quiet", str(path)], check=True)
        print(f"Wrote {path.name}")
