"""Where keys and values of a TOML document stand."""

import datetime
import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.config.positions import positions

DOCUMENT = '''\
a = 1 # comment
"b.c".d = [1, 2, [ "x", {y = 1, z.w = "q"}],
  # between
  """x""\\" ]""""", ] # end
d = 1979-05-27 07:32:00
l = \'\'\'a\'\'\'\'
[[m]]
id = "x"
[m.dev]
cpu=true
[[m]]
id = 'y'
dev.cpu = false
"\\u00e4" = { }
[t . "u"]
k = -inf
'''


def values(value, location=()):
    """All values of a mapping with their locations."""
    match value:
        case dict():
            inner = value.items()
        case list():
            inner = enumerate(value)
        case _:
            return {location: value}
    found = {location: value} if location else {}
    for key, part in inner:
        found |= values(part, (*location, key))
    return found


def check(text):
    """Each value is where it is said to be: parsed by itself it is the value of the whole document."""
    whole, found = values(tomllib.loads(text)), positions(text)
    assert set(whole) == set(found)
    for location, entry in found.items():
        if isinstance(whole[location], dict) or (isinstance(whole[location], list) and text[entry.value[0]] == "["):
            continue
        assert tomllib.loads(f"v = {text[slice(*entry.value)]}")["v"] == whole[location]


@pytest.mark.parametrize("text", [DOCUMENT, DOCUMENT.replace("\n", "\r\n"), "", "# nothing", "[a]\n[a.b]\n"])
def test_every_value_is_where_it_is_said_to_be(text):
    check(text)


KEYS = st.sampled_from(["a", "b-c", '"d.e"', "'f'", "g . h", "i.j"])
SCALARS = st.sampled_from(
    ["1", "-2.5e3", "true", '"x # ]"', "'y, }'", '"""a\n"b" """', "'''c\n'''", "1979-05-27", "07:32:00", '""', "''"]
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[ {' ,'.join(items)}\n]")
        | st.lists(inner, max_size=3).map(
            lambda items: "{" + ", ".join(f"k{number} = {item}" for number, item in enumerate(items)) + "}"
        )
    ),
    max_leaves=6,
)


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["[[x]]", "[x.y]", "[z]", "", "# c"]), KEYS, VALUES), max_size=5))
def test_whatever_is_valid_toml_has_its_positions(statements):
    text = "".join(f"{header}\n  {key}\t= {value} # c\n" for header, key, value in statements)
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    check(text)


def test_a_date_is_one_value():
    (entry,) = positions("day = 1979-05-27 07:32:00").values()
    assert entry.value == (6, 25)
    assert tomllib.loads("day = 1979-05-27 07:32:00")["day"] == datetime.datetime(1979, 5, 27, 7, 32)  # noqa: DTZ001
