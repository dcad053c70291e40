"""Draw which package imports which, as a Mermaid diagram for docs/architecture.md: ``make docs`` writes it there.

    python scripts/draw_packages.py      # print it

An arrow that follows from two others is left out, so the drawing has the fewest arrows that imply all imports.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

SOURCE = Path(__file__).parent.parent / "src" / "modelyard"

# What each package is for, in the words of the drawing.
CAPTIONS: Mapping[str, str] = {
    "cli": "commands in the terminal",
    "cluster": "many machines",
    "inprocess": "Python API, HTTP server",
    "api": "HTTP dialects",
    "mcp": "clients of MCP servers",
    "agent": "rounds of a model and its tools",
    "yard": "models, residency, requests",
    "doctor": "checks of the machine",
    "converter": "checkpoints to GGUF and UQFF",
    "engine": "one model: schedule, decode, sample",
    "hub": "a model id becomes files",
    "remote": "models that other servers have",
    "config": "TOML schema and rules",
    "formats": "GGUF, UQFF, safetensors",
    "protocol": "messages between packages",
    "llama_binding": "the import of llama.cpp",
    "errors": "all errors",
    "system": "memory, processes, files",
}


def render_packages() -> str:
    """Return the diagram as a fenced block of Markdown."""
    imports = package_imports()
    lines = ["```mermaid", "graph TD"]
    lines += [f'  {name}["<b>{name}</b><br/>{CAPTIONS[name]}"]' for name in CAPTIONS]
    lines += [f"  {name} --> {target}" for name in CAPTIONS for target in _drawn(name, imports)]
    return "\n".join([*lines, "```", ""])


def package_imports() -> dict[str, set[str]]:
    """Return for each package, or module beside the packages, the others that its files import.

    Raises:
        KeyError: ``CAPTIONS`` and the source have different packages.
    """
    found: dict[str, set[str]] = {name: set() for name in CAPTIONS}
    for path in sorted(SOURCE.rglob("*.py")):
        name = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        # The version is a constant; the other two only pass on what is public.
        if name not in ("__init__", "__main__", "version"):
            found[name].update(set(_imported(path)) & found.keys() - {name})
    return found


def _imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        if isinstance(node, ast.ImportFrom) and node.module == "modelyard":
            modules = [f"modelyard.{alias.name}" for alias in node.names]
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        for module in modules:
            root, _, rest = module.partition(".")
            if root == "modelyard" and rest:
                yield rest.split(".")[0]


def _drawn(name: str, imports: Mapping[str, set[str]]) -> list[str]:
    """Return the imports of a package that it does not also reach through another one, in the order of the drawing."""
    implied = {far for near in imports[name] for far in _reached(near, imports)}
    return [each for each in CAPTIONS if each in imports[name] - implied]


def _reached(name: str, imports: Mapping[str, set[str]]) -> set[str]:
    reached: set[str] = set()
    waiting = list(imports[name])
    while waiting:
        each = waiting.pop()
        if each not in reached:
            reached.add(each)
            waiting += imports[each]
    return reached


if __name__ == "__main__":
    sys.stdout.write(render_packages())
