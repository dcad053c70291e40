"""What a docstring says about a function and its parameters, in three styles."""

from __future__ import annotations

import inspect

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.inprocess.tools.docstrings import Documentation, read_docstring

GOOGLE = """Look up the weather.

Only for today.

Args:
    city: Name of the city,
        in English.
    unit (str, optional): "c" or "f".
    **extra: ignored

Returns:
    city: not a parameter.
"""

NUMPY = """Look up the weather.

Only for today.

Parameters
----------
city : str
    Name of the city,
    in English.
unit : {"c", "f"}, optional
    "c" or "f".
extra
    ignored

Returns
-------
city : str
    not a parameter.
"""

REST = """Look up the weather.

Only for today.

:param city: Name of the city,
    in English.
:param str unit: "c" or "f".
:keyword extra: ignored
:type city: str
:returns: a text
:raises ValueError: never
"""


@pytest.mark.parametrize("docstring", [GOOGLE, NUMPY, REST], ids=["google", "numpy", "rest"])
def test_three_styles_say_the_same(docstring: str) -> None:
    assert read_docstring(inspect.cleandoc(docstring)) == Documentation(
        "Look up the weather.\n\nOnly for today.",
        {"city": "Name of the city, in English.", "unit": '"c" or "f".', "extra": "ignored"},
    )


def test_the_type_of_a_parameter_may_have_parentheses() -> None:
    docstring = "Do.\n\nArgs:\n    x (tuple(int, int)): a pair (of two): both\n    y: b (c): d"
    assert read_docstring(docstring).parameters == {"x": "a pair (of two): both", "y": "b (c): d"}


def test_parameters_of_one_line_of_numpy_share_a_description() -> None:
    docstring = "Add.\n\nParameters\n----------\nx, y : int\n    A number."
    assert read_docstring(docstring).parameters == {"x": "A number.", "y": "A number."}


def test_a_docstring_without_sections_is_the_description() -> None:
    assert read_docstring("Note: this is no section.\n\nThe end") == Documentation(
        "Note: this is no section.\n\nThe end", {}
    )
    assert read_docstring(None) == read_docstring("  ") == Documentation()


def test_a_parameter_without_words_has_no_description() -> None:
    assert read_docstring("Do.\n\nArgs:\n    x:\n    y: why\n").parameters == {"y": "why"}


_LINES = st.sampled_from(
    [
        "Args:",
        "Parameters",
        "-----",
        "---",
        "x: a",
        "    x: a",
        "        b",
        ":param x: a",
        ":",
        "Returns:",
        "",
        "text",
        "  ",
    ]
)


@settings(deadline=None)
@given(st.lists(_LINES | st.text(max_size=12), max_size=12))
def test_any_text_is_read(lines: list[str]) -> None:
    documentation = read_docstring("\n".join(lines))
    assert all(name and text and "\n" not in text for name, text in documentation.parameters.items())
