"""What the documents say holds."""

from __future__ import annotations

import ast
import json
import re
import sys
import tomllib
from pathlib import Path

import pytest
from man_pages import render_man_pages, roff
from write_docs import GENERATED, MAN, with_generated

from modelyard.cli.commands import COMMANDS
from modelyard.config import Config, load_config, mcp_tables, read_keys, validate_config

ROOT = Path(__file__).parent.parent.parent


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text("utf-8"), re.DOTALL)


def of_one_model(tables: str) -> Config:
    models = [{"model_id": "small.gguf", "alias": "small"}]
    return validate_config({**tomllib.loads(tables), "models": models}, source="docs")


@pytest.mark.parametrize("path", GENERATED, ids=lambda path: path.name)
def test_the_generated_parts_are_up_to_date(path: Path) -> None:
    page = path.read_text("utf-8")
    assert page == with_generated(page, GENERATED[path]()), "run: make docs"


def test_the_manual_pages_are_up_to_date() -> None:
    assert {path.name: path.read_text("utf-8") for path in MAN.iterdir()} == render_man_pages(), "run: make docs"


def test_each_command_has_a_manual_page_that_the_first_one_names() -> None:
    pages = render_man_pages()
    for command in COMMANDS:
        assert pages[f"modelyard-{command.name}.1"].startswith(f".TH {roff(f'modelyard-{command.name}'.upper())} 1 ")
        assert rf"\fBmodelyard\-{roff(command.name)}\fR(1)" in pages["modelyard.1"]


def test_a_manual_page_shows_options_and_examples_as_they_are_typed() -> None:
    page = render_man_pages()["modelyard-serve.1"]
    assert r"modelyard serve ./smollm2.gguf ./gemma3.gguf \-\-ctx 4096" in page.splitlines()
    assert roff(".x 'y' \\n `~`") == r"\&.x \(aqy\(aq \en \(ga\(ti\(ga"
    assert not re.findall(
        r"^['.](?!TH |SH |TP$|PP$|br$|nf$|fi$).*", "\n".join(render_man_pages().values()), re.MULTILINE
    )


def test_the_configuration_of_keys_is_valid() -> None:
    example, *_ = blocks("docs/operations.md", "toml")
    keys = read_keys(of_one_model(example), {"CI_KEY": "x"})
    assert [key.name for key in keys] == ["api-key-1", "alice", "ci", "prometheus"]


def test_the_configurations_of_mcp_servers_are_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEARCH_TOKEN", "x")
    for example in blocks("docs/mcp.md", "toml"):
        assert validate_config(tomllib.loads(example), source="docs/mcp.md").mcp.servers
    for example in blocks("docs/mcp.md", "json"):
        assert mcp_tables(json.loads(example))["servers"]


def test_the_configurations_to_start_with_are_valid() -> None:
    page = "docs/getting-started.md"
    first, second = (validate_config(tomllib.loads(example), source=page) for example in blocks(page, "toml"))
    assert [model.id for model in first.models] == ["Qwen/Qwen3-4B", "google/gemma-4-E4B-it"]
    assert [model.id for model in second.models] == ["small", "large"]


def test_the_demo_configuration_is_valid() -> None:
    assert load_config(ROOT / "examples" / "demo.toml").default_model_id == "smollm2"


def needed(program: str) -> set[str]:
    """What must be installed for a program, by the names of its imports, beside Python and Modelyard."""
    modules = {"openai"} if ".openai_client(" in program else set()
    for node in ast.walk(ast.parse(program)):
        if isinstance(node, ast.Import):
            modules |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add((node.module or "").partition(".")[0])
    return modules - sys.stdlib_module_names - {"modelyard"}


def test_what_a_program_of_a_page_needs_is_installed_with_modelyard_or_named_there() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    installed = {re.split(r"[^\w-]", each, maxsplit=1)[0].replace("-", "_") for each in project["dependencies"]}
    for page in PAGES:
        text = page.read_text("utf-8")
        named = set(re.findall(r"[\w-]+", " ".join(re.findall(r"pip install [^`\n]+", text))))
        for program in blocks(str(page.relative_to(ROOT)), "python"):
            assert needed(program) <= installed | named, page.name


PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_documents_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text("utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_link_into_a_page_leads_to_a_heading_of_it(page: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#([^)]+)\)", page.read_text("utf-8")):
        headings = re.findall(
            r"^#+ (.*)$", ((page.parent / target) if target else page).read_text("utf-8"), re.MULTILINE
        )
        assert anchor in {slug(heading) for heading in headings}, f"{page.name} links to {target}#{anchor}"


def test_the_site_leads_to_every_page() -> None:
    listed = re.findall(r": ((?:docs/)?[A-Za-z-]+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(str(page.relative_to(ROOT)) for page in PAGES)


def slug(heading: str) -> str:
    """The anchor that GitHub and mkdocs make of a heading without other punctuation."""
    return re.sub(r"[^a-z0-9 _-]", "", heading.lower()).strip().replace(" ", "-")


@pytest.mark.parametrize("page", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_the_files_that_a_page_for_developers_names_exist(page: str) -> None:
    """A name without a folder stands for a file whose folder the text has named, so it may be anywhere."""
    folders = ("src", "tests", "scripts", "docs", "examples", "requirements")
    present = {f"/{path.relative_to(ROOT)}" for folder in folders for path in (ROOT / folder).rglob("*")}
    present |= {f"/{path.name}" for path in ROOT.iterdir()}
    prose = re.sub(r"```.*?```", "", (ROOT / page).read_text("utf-8"), flags=re.DOTALL)
    for name in re.findall(r"`([a-z_/.]+(?:/|\.(?:py|md|toml|lock)))`", prose):
        assert any(path.endswith(f"/{name.rstrip('/')}") for path in present), f"{page} names {name}"


def of_document(text: str) -> list[str]:
    """The configurations that a block of TOML shows: whole ones, or parts of a model, also with alternatives."""
    if re.match(r"\[models\.", text):
        text = f'[[models]]\nmodel_id = "org/name"\n{text}'
    elif "[[models]]" not in text:
        text = f'{text}\n[[models]]\nmodel_id = "org/name"\nalias = "small"\n'
    lines = text.splitlines()
    keys = [line.partition("=")[0].strip() for line in lines]
    # A key that stands twice in a row has two forms, of which a file has one.
    twice = [number for number in range(1, len(lines)) if keys[number] == keys[number - 1] and "=" in lines[number]]
    variants = [[lines[first] for first in range(len(lines)) if first not in twice]]
    variants += [[line for number, line in enumerate(lines) if number != second - 1] for second in twice]
    return ["\n".join(variant) for variant in variants]


@pytest.mark.parametrize("page", [page for page in PAGES if "```toml" in page.read_text("utf-8")], ids=lambda p: p.name)
def test_every_configuration_of_a_page_is_valid(page: Path) -> None:
    for example in blocks(str(page.relative_to(ROOT)), "toml"):
        for text in of_document(example):
            validate_config(tomllib.loads(text), source=page.name)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_target_of_make_that_a_page_names_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    code = " ".join(re.findall(r"```sh\n.*?```|`[^`\n]+`", page.read_text("utf-8"), re.DOTALL))
    assert set(re.findall(r"(?<![\w-])make ([a-z]+)", code)) <= targets
