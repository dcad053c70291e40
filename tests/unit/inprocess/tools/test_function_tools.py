"""Functions of a program as tools: their schemas, and what a model's arguments become."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from enum import Enum
from functools import lru_cache, partial, wraps
from typing import Annotated, Any, Literal, Optional, TypedDict

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from modelyard.errors import InvalidRequest
from modelyard.inprocess.tools.callables import is_async
from modelyard.inprocess.tools.function_tool import FunctionTool
from modelyard.inprocess.tools.parameters import ArgumentsRefused


class Color(Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Point:
    x: int
    y: int = 0


class Order(BaseModel):
    title: str = Field(description="what is ordered")
    color: Color | None = None


class Tree(BaseModel):
    name: str
    children: list[Tree] = []


class Opaque:
    pass


def passed(function: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    """What a function is called with, for arguments of a model."""
    positional, by_name = FunctionTool(function).checked_parameters.checked(arguments)
    return function(*positional, **by_name)


def properties(function: Callable[..., Any]) -> dict[str, Any]:
    found: dict[str, Any] = FunctionTool(function).parameters["properties"]
    return found


def test_a_function_is_described_by_its_signature_and_its_docstring() -> None:
    def weather(city: str, unit: Literal["c", "f"] = "c", days: int | None = None) -> str:
        """Look up the weather.

        Args:
            city: Name of the city.
        """
        return f"{city} {unit} {days}"

    tool = FunctionTool(weather)
    assert (tool.name, tool.description) == ("weather", "Look up the weather.")
    assert tool.parameters == {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "Name of the city."},
            "unit": {"type": "string", "enum": ["c", "f"], "default": "c"},
            "days": {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None},
        },
        "required": ["city"],
        "additionalProperties": False,
    }
    assert repr(tool) == "FunctionTool(weather)"


def test_annotations_describe_before_the_docstring_does() -> None:
    def search(
        query: Annotated[str, "what to look for"],
        limit: Annotated[int, Field(ge=1, le=9, description="how many")] = 3,
        page: int = Field(1, ge=1, description="which page"),
        order: Annotated[str, Field(min_length=1)] = "date",
    ) -> None:
        """Search.

        Args:
            query: docstring
            limit: docstring
            page: docstring
            order: docstring
        """

    found = properties(search)
    assert [each["description"] for each in found.values()] == [
        "what to look for",
        "how many",
        "which page",
        "docstring",
    ]
    assert (found["limit"]["maximum"], found["limit"]["default"], found["page"]["default"]) == (9, 3, 1)
    assert FunctionTool(search).parameters["required"] == ["query"]


def test_types_of_many_kinds_are_described_and_converted() -> None:
    def plan(
        point: Point, order: Order, color: Color, day: date, tags: set[str], weights: dict[str, float], any_value: Any
    ) -> Any:
        return point, order, color, day, tags, weights, any_value

    found = properties(plan)
    assert found["point"]["required"] == ["x"]
    assert found["order"]["properties"]["title"] == {"type": "string", "description": "what is ordered"}
    assert found["color"] == {"type": "string", "enum": ["red", "blue"]}
    assert "$ref" not in json.dumps(found)
    arguments = {
        "point": {"x": "4"},
        "order": {"title": "a", "color": "red"},
        "color": "blue",
        "day": "2026-02-03",
        "tags": ["a", "a"],
        "weights": {"a": 1},
        "any_value": [None, {"b": True}],
    }
    expected = (Point(4), Order(title="a", color=Color.RED), Color.BLUE, date(2026, 2, 3), {"a"}, {"a": 1.0})
    assert passed(plan, arguments) == (*expected, [None, {"b": True}])


def test_parameters_may_have_any_name() -> None:
    def awkward(schema: str, copy: int, model_config: bool, _private: str = "p", title: str = "t") -> Any:
        return schema, copy, model_config, _private, title

    assert list(properties(awkward)) == ["schema", "copy", "model_config", "_private", "title"]
    assert passed(awkward, {"schema": "s", "copy": 1, "model_config": True, "_private": "q"}) == (
        "s",
        1,
        True,
        "q",
        "t",
    )


def test_what_a_call_leaves_out_is_the_functions_own_default() -> None:
    shared: list[int] = []
    marker = object()

    def add(number: int, to: list[int] = shared, other: Any = marker) -> Any:
        to.append(number)
        return other

    assert properties(add)["other"] == {}
    assert passed(add, {"number": 1}) is marker
    assert shared == [1]
    assert passed(within_days, {}) == 7


def within_days(days: int = Field(7, ge=1)) -> int:
    return days


def test_a_type_that_contains_itself_keeps_its_reference() -> None:
    def grow(tree: Tree) -> Tree:
        return tree

    parameters = FunctionTool(grow).parameters
    assert parameters["properties"]["tree"] == {"$ref": "#/$defs/Tree"}
    arguments = {"tree": {"name": "a", "children": [{"name": "b"}]}}
    jsonschema.validate(arguments, parameters)
    assert passed(grow, arguments).children[0].name == "b"


class Counter:
    """Counts."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, by: int = 1) -> int:
        """Add to the count."""
        self.count += by
        return self.count

    def __call__(self, by: int) -> int:
        return self.add(by)

    @staticmethod
    def name() -> str:
        return "counter"

    @classmethod
    def make(cls, number: int) -> str:
        return f"{cls.__name__} {number}"


def test_methods_and_objects_that_can_be_called_are_functions_too() -> None:
    counter = Counter()
    assert list(properties(counter.add)) == ["by"]
    assert passed(counter.add, {"by": 2}) == 2
    assert passed(counter, {"by": 3}) == 5
    assert (FunctionTool(counter).name, FunctionTool(counter).description) == ("Counter", "Counts.")
    assert passed(Counter.name, {}) == "counter"
    assert passed(Counter.make, {"number": 4}) == "Counter 4"


def test_arguments_of_a_partial_are_hidden_from_the_model() -> None:
    def send(account: str, text: str, *, urgent: bool = False) -> Any:
        """Send a text."""
        return account, text, urgent

    tool = FunctionTool(partial(send, "me", urgent=True))
    assert (tool.name, tool.description, list(tool.parameters["properties"])) == ("send", "Send a text.", ["text"])
    assert passed(partial(send, "me", urgent=True), {"text": "a"}) == ("me", "a", True)
    with pytest.raises(ArgumentsRefused, match="urgent"):
        passed(partial(send, "me", urgent=True), {"text": "a", "urgent": False})


def test_decorated_functions_keep_their_signature() -> None:
    def logged(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        return run

    @logged
    def double(number: int) -> int:
        """Double it."""
        return 2 * number

    assert passed(double, {"number": "4"}) == 8
    assert passed(lru_cache(double), {"number": 4}) == 8
    assert FunctionTool(lru_cache(double)).description == "Double it."


def test_arguments_by_position_alone_are_passed_by_position() -> None:
    def power(base: float, exponent: float = 2.0, /) -> float:
        return base**exponent

    assert passed(power, {"base": 3}) == 9
    assert passed(power, {"base": 3, "exponent": 3}) == 27


def test_what_a_model_passes_wrongly_is_told_in_words_that_it_can_read() -> None:
    def book(city: str, nights: Annotated[int, Field(ge=1)], point: Optional[Point] = None) -> None: ...  # noqa: UP045

    with pytest.raises(ArgumentsRefused) as refused:
        passed(book, {"nights": "many" * 100, "point": {"y": 1}, "hotel": "x"})
    text = str(refused.value)
    assert text.startswith("The arguments are invalid. city: Field required; nights: Input should be a valid integer")
    assert "point.x: Field required" in text
    assert "hotel: Extra inputs are not permitted" in text
    assert "field_" not in text
    assert len(text) < 500


def test_only_some_problems_are_listed() -> None:
    def many(numbers: list[int]) -> None: ...

    with pytest.raises(ArgumentsRefused, match=r"numbers\.4: .*; and 95 more\.$"):
        passed(many, {"numbers": ["a"] * 100})


def takes_anything(*texts: str) -> None: ...


def takes_any_names(**texts: str) -> None: ...


def takes_an_object(one: int, other: Opaque) -> None: ...


def takes_a_look_ahead(text: Annotated[str, Field(pattern="^(?=a)b$")]) -> None: ...


def takes_functions(of: list[Callable[[], int]]) -> None: ...


def takes_the_unknown(one: "Unknown") -> None: ...  # type: ignore[name-defined] # noqa: F821, UP037


def counts(to: int) -> Any:
    yield from range(to)


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (takes_anything, r"'takes_anything' takes \*texts, which a JSON schema cannot"),
        (takes_any_names, r"'takes_any_names' takes \*\*texts"),
        (takes_an_object, "its parameter 'other' has the type Opaque, which has no JSON schema"),
        (takes_a_look_ahead, "its parameter 'text' has the type Annotated.*which cannot be checked: .*look-around"),
        (takes_functions, r"its parameter 'of' has the type list\[.*Callable.*which has no JSON schema"),
        (takes_the_unknown, "names what its module does not: name 'Unknown' is not defined"),
        (counts, "'counts' is a generator"),
        (max, "'max' cannot be called by a model: its signature is unknown"),
        (lambda text: text, r"'<lambda>' cannot be the name of a tool.* FunctionTool\(function, name="),
        (Counter, "this is a class"),
        ("weather", r"this is 'weather' \(str\)"),
        (None, "this is None"),
    ],
)
def test_what_no_tool_can_be_made_of_is_refused(function: Any, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says) as refused:
        FunctionTool(function)
    assert refused.value.param == "tools"


class City(TypedDict):
    name: str


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="pydantic takes the TypedDict of typing")
def test_a_typed_dict_that_python_cannot_describe_is_refused_with_one_that_it_can() -> None:
    def visit(cities: list[City]) -> None: ...

    with pytest.raises(
        InvalidRequest, match=r"'cities' has the type list.*Take the TypedDict of the package typing_ext"
    ):
        FunctionTool(visit)


def test_a_tool_can_be_named_and_described_by_hand() -> None:
    tool = FunctionTool(lambda text: text, name="echo", description="Repeats.", timeout_s=5, needs_approval=True)
    assert (tool.name, tool.description, tool.timeout_s, tool.needs_approval) == ("echo", "Repeats.", 5.0, True)
    for name in ("", "a b", "a.b", "ä", "a" * 65):
        with pytest.raises(InvalidRequest, match="cannot be the name of a tool"):
            FunctionTool(lambda: "", name=name)
    for timeout_s in (0, -1, float("nan"), float("inf"), "5"):
        with pytest.raises(InvalidRequest, match="needs a timeout_s above 0"):
            FunctionTool(lambda: "", name="a", timeout_s=timeout_s)  # type: ignore[arg-type]


async def asynchronous() -> None: ...


class Awaited:
    async def __call__(self) -> None: ...


def test_functions_that_are_awaited_are_told_from_others() -> None:
    assert is_async(asynchronous)
    assert is_async(partial(asynchronous))
    assert is_async(Awaited())
    assert not is_async(counts)
    assert not is_async(Counter())


_JSON_TYPES: dict[Any, st.SearchStrategy[Any]] = {
    str: st.text(),
    int: st.integers(),
    bool: st.booleans(),
    float: st.floats(allow_nan=False, allow_infinity=False),
    list[int]: st.lists(st.integers()),
    dict[str, bool]: st.dictionaries(st.text(), st.booleans()),
    int | None: st.none() | st.integers(),
    Literal["a", "b"]: st.sampled_from(["a", "b"]),
}


@settings(deadline=None)
@given(st.data())
def test_arguments_that_follow_the_schema_reach_the_function_as_they_are(data: st.DataObject) -> None:
    kinds = data.draw(st.lists(st.sampled_from(list(_JSON_TYPES)), max_size=4))
    arguments = {f"p{index}": data.draw(_JSON_TYPES[kind]) for index, kind in enumerate(kinds)}
    # A JSON text holds no lone surrogates.
    arguments = json.loads(json.dumps(arguments).encode().decode())

    names: dict[str, Any] = {}
    parameters = ", ".join(f"p{index}: kinds[{index}]" for index in range(len(kinds)))
    collected = ", ".join(f"p{index}=p{index}" for index in range(len(kinds)))
    exec(f"def called({parameters}): return dict({collected})", {"kinds": kinds}, names)
    tool = FunctionTool(names["called"])
    jsonschema.validate(arguments, tool.parameters)
    positional, by_name = tool.checked_parameters.checked(arguments)
    assert names["called"](*positional, **by_name) == arguments
