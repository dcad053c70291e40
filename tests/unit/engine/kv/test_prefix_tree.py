"""What is stored under the prefixes of a prompt."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from modelyard.engine.kv.prefix_tree import PrefixTree, common_prefix

tokens = st.lists(st.integers(0, 2), max_size=8)


@given(st.lists(st.tuples(tokens, st.sampled_from(["", "a"]), st.booleans())), tokens, st.sampled_from(["", "a"]))
def test_a_match_is_what_a_search_of_everything_finds(
    added: list[tuple[list[int], str, bool]], prompt: list[int], salt: str
) -> None:
    tree = PrefixTree[int]()
    for number, (content, owner, _) in enumerate(added):
        tree.add(content, number, owner)
    stored = dict(enumerate(added))
    for number, (content, owner, is_removed) in enumerate(added):
        if is_removed:
            tree.remove(content, number, owner)
            del stored[number]
    match = tree.match(prompt, salt)
    own = {number: content for number, (content, owner, _) in stored.items() if owner == salt}
    prefixes = [(len(content), number) for number, content in own.items() if prompt[: len(content)] == content]
    assert sorted(match.stored) == sorted(prefixes)
    assert [length for length, _ in match.stored] == sorted(length for length, _ in prefixes)
    longest = max((common_prefix(prompt, content) for content in own.values()), default=0)
    assert match.common == longest
    assert (match.nearest is None) == (not own)
    if match.nearest is not None:
        assert common_prefix(prompt, own[match.nearest]) == longest
