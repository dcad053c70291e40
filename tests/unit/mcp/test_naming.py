"""Names of the tools of MCP servers, as providers take them."""

import re

from hypothesis import given
from hypothesis import strategies as st

from modelyard.mcp.naming import ToolKey, tool_names

KEYS = st.lists(
    st.builds(ToolKey, st.sampled_from(["a", "b"]), st.sampled_from(["", "x", "p" * 32]), st.text(max_size=80)),
    max_size=12,
    unique_by=lambda key: (key.server, key.own_name),
)


def names(*keys, taken=()):
    return tool_names([ToolKey(*key) for key in keys], taken)


def test_a_name_is_the_prefix_and_the_own_name():
    assert names(("files", "fs", "read"), ("git", "", "log")) == ["fs_read", "log"]


def test_what_a_name_cannot_hold_becomes_an_underscore():
    assert names(("a", "a", "read.file v2"), ("a", "a", "名")) == ["a_read_file_v2", "a__"]


def test_of_tools_with_one_name_the_first_that_was_not_changed_keeps_it():
    first, second, third = names(("a", "x", "b.c"), ("a", "x", "b_c"), ("b", "x", "b_c"))
    assert second == "x_b_c"
    assert re.fullmatch(r"x_b_c_[0-9a-f]{8}", first)
    assert re.fullmatch(r"x_b_c_[0-9a-f]{8}", third)
    assert first != third


def test_a_name_that_is_taken_is_avoided():
    assert names(("a", "", "add"), taken={"add"})[0].startswith("add_")


def test_a_long_name_ends_with_a_hash_that_does_not_depend_on_the_other_tools():
    (alone,) = names(("a", "x", "n" * 100))
    assert len(alone) == 64
    assert names(("b", "y", "m"), ("a", "x", "n" * 100))[1] == alone


@given(KEYS)
def test_names_are_those_that_providers_take_and_all_different(keys):
    found = tool_names(keys)
    assert len(set(found)) == len(keys)
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", name) for name in found if name)


@given(KEYS)
def test_names_are_the_same_each_time(keys):
    assert tool_names(keys) == tool_names(keys)
