"""Who holds which key, and what the file may say of it."""

from __future__ import annotations

import hashlib

import pytest

from modelyard.config import AccessKey, is_loopback, read_keys, validate_config
from modelyard.config.key_rules import digest_of
from modelyard.errors import ConfigError

MODELS = [{"model_id": "org/smol", "alias": "smol"}, {"model_id": "gemma", "aliases": ["g"]}]
ALL = frozenset({"inference", "read", "admin"})
SECRET = "sk-very-secret"
DIGEST = hashlib.sha256(SECRET.encode()).hexdigest()


def keys(server, environment=None) -> tuple[AccessKey, ...]:
    return read_keys(validate_config({"models": MODELS, "server": server}), environment or {})


def problems(server) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        validate_config({"models": MODELS, "server": server})
    assert SECRET not in str(caught.value)
    return tuple(str(problem) for problem in caught.value.problems)


def test_without_keys_everybody_is_let_in():
    assert keys({}) == ()


def test_a_plain_key_may_do_everything():
    assert keys({"api_keys": [SECRET]}) == (AccessKey("api-key-1", bytes.fromhex(DIGEST), None, ALL),)


@pytest.mark.parametrize("written", [f"sha256:{DIGEST}", f"sha256:{DIGEST.upper()}", SECRET])
def test_a_digest_stands_for_its_key(written):
    (key,) = keys({"api_keys": [written]})
    assert key.digest == digest_of(SECRET.encode())


def test_the_environment_has_more_keys():
    found = keys({"api_keys": ["a"]}, {"MODELYARD_API_KEYS": f" b, ,sha256:{DIGEST} "})
    assert [(key.name, key.digest) for key in found] == [
        ("api-key-1", digest_of("a")),
        ("env-key-1", digest_of("b")),
        ("env-key-2", bytes.fromhex(DIGEST)),
    ]


def test_a_table_says_what_its_key_may_do():
    table = {"name": "alice", "key": SECRET, "models": ["org/smol", "g"], "requests_per_minute": 60}
    assert keys({"keys": [table]}) == (
        AccessKey(
            "alice", bytes.fromhex(DIGEST), frozenset({"smol", "gemma"}), frozenset({"inference", "read"}), 60, None
        ),
    )


def test_a_key_may_come_from_the_environment():
    (key,) = keys({"keys": [{"key_env": "ALICE"}]}, {"ALICE": f"{SECRET}\n"})
    assert (key.name, key.digest) == ("key-1", bytes.fromhex(DIGEST))


def test_a_key_that_is_listed_twice_has_the_limits_of_its_table():
    (key,) = keys({"api_keys": [SECRET], "keys": [{"key": f"sha256:{DIGEST}", "scopes": ["read"]}]})
    assert key.scopes == {"read"}


def test_a_variable_that_is_not_set_is_an_error_and_not_an_open_door():
    with pytest.raises(ConfigError, match=r"\[\[server.keys\]\] 2: the environment variable ALICE is not set"):
        keys({"keys": [{"key": "a"}, {"key_env": "ALICE"}]}, {"ALICE": " "})


def test_a_broken_digest_in_the_environment_is_not_shown():
    with pytest.raises(ConfigError, match="MODELYARD_API_KEYS: item 2 must be a key, or sha256:") as caught:
        keys({}, {"MODELYARD_API_KEYS": f"a,sha256:{SECRET}"})
    assert SECRET not in repr(caught.value)


@pytest.mark.parametrize(
    ("server", "problem"),
    [
        (
            {"api_keys": [f"sha256:{SECRET}"]},
            "[server]: api_keys: item 1 must be a key, or sha256: and the 64 hexadecimal digits of its digest, in "
            "quotes.",
        ),
        (
            {"keys": [{"key": "a"}, {"key": f"sha256:{SECRET}"}]},
            "[[server.keys]] 2: key must be a key, or sha256: and the 64 hexadecimal digits of its digest, in quotes.",
        ),
        ({"keys": [{}]}, "[[server.keys]] 1: write either key or key_env."),
        ({"keys": [{"key": SECRET, "key_env": "A"}]}, "[[server.keys]] 1: write either key or key_env."),
        (
            {"keys": [{"key": SECRET, "models": ["gema"]}]},
            "[[server.keys]] 1: models: 'gema' is no model. Did you mean 'gemma'?",
        ),
        ({"keys": [{"key": SECRET, "modls": []}]}, "[[server.keys]] 1: unknown key 'modls'. Did you mean 'models'?"),
        (
            {"keys": [{"key": SECRET, "scopes": ["reed"]}]},
            '[[server.keys]] 1: scopes: item 1 must be one of "inference", "read", "admin", not \'reed\'. '
            "Did you mean 'read'?",
        ),
        (
            {"keys": [{"key": SECRET, "name": "a b"}]},
            "[[server.keys]] 1: name must be a name of at most 64 letters, digits, dots, dashes and underscores, not "
            "'a b'.",
        ),
        (
            {"keys": [{"key": SECRET, "name": "a"}, {"key": "b", "name": "a"}]},
            "The name 'a' belongs to more than one of [[server.keys]]. Give each its own.",
        ),
        (
            {"api_keys": ["b"], "keys": [{"key": SECRET, "name": "api-key-1"}]},
            "The name 'api-key-1' of one of [[server.keys]] belongs to another key: those of api_keys are called "
            "api-key-1 and so on, those of MODELYARD_API_KEYS env-key-1 and so on. Give the table another name.",
        ),
        (
            {"keys": [{"key": SECRET}, {"key": "b", "name": "key-1"}]},
            "The name 'key-1' belongs to more than one of [[server.keys]]. Give each its own. A table without a name "
            "has that of its place, such as key-1.",
        ),
        (
            {"keys": [{"key": SECRET, "group": "a b"}]},
            "[[server.keys]] 1: group must be a name of at most 64 letters, digits, dots, dashes and underscores, not "
            "'a b'.",
        ),
        (
            {"keys": [{"key": SECRET, "max_priority": 101}]},
            "[[server.keys]] 1: max_priority must be a whole number from -100 to 100, not 101.",
        ),
        (
            {"keys": {"key": SECRET}},
            "server.keys must be a list of tables: open each with [[server.keys]], in double brackets.",
        ),
        ({"keys": [SECRET]}, "[[server.keys]] 1 must be a table."),
    ],
)
def test_what_cannot_be_is_said_in_the_words_of_the_file(server, problem):
    assert problems(server) == (problem,)


def test_a_table_cannot_take_the_name_of_a_key_of_the_environment():
    with pytest.raises(ConfigError, match="The name 'env-key-1' of one of"):
        keys({"keys": [{"key": "a", "name": "env-key-1"}]}, {"MODELYARD_API_KEYS": "b"})


@pytest.mark.parametrize(
    ("table", "highest"),
    [
        ({}, 0),
        ({"scopes": ["inference", "read", "admin"]}, 100),
        ({"scopes": ["inference", "admin"], "models": ["smol"]}, 0),
        ({"max_priority": -5}, -5),
        ({"max_priority": 7, "scopes": ["admin"]}, 7),
    ],
)
def test_a_key_that_may_do_less_is_not_more_urgent_than_others_unless_it_may_be(table, highest):
    (key,) = keys({"keys": [{"key": SECRET, **table}]})
    assert key.highest_priority == highest
    (full,) = keys({"api_keys": [SECRET]})
    assert full.highest_priority == 100


def test_each_key_shares_prefixes_with_itself_its_group_or_all():
    tables = [{"key": "a", "group": "x"}, {"key": "b", "group": "x"}, {"key": "c"}, {"key": "d"}]
    a, b, c, d = keys({"keys": tables})
    assert len({key.cache_salt("key") for key in (a, b, c, d)}) == 4
    assert a.cache_salt("group") == b.cache_salt("group")
    assert len({key.cache_salt("group") for key in (b, c, d)}) == 3
    assert {key.cache_salt("all") for key in (a, b, c, d)} == {""}


def test_the_salt_of_a_key_is_the_same_after_a_restart_and_tells_neither_key_nor_digest():
    first, again = (keys({"api_keys": [SECRET]})[0].cache_salt("key") for _ in range(2))
    assert first == again
    assert first not in (SECRET, DIGEST)
    assert not DIGEST.startswith(first)


def test_a_group_that_is_called_like_a_digest_is_not_the_key_of_it():
    (alone,) = keys({"keys": [{"key": SECRET}]})
    (named,) = keys({"keys": [{"key": "b", "group": DIGEST}]})
    assert alone.cache_salt("group") != named.cache_salt("group")


@pytest.mark.parametrize(
    ("host", "is_own"),
    [
        *((host, True) for host in ("localhost", "LOCALHOST", "127.0.0.1", "127.8.0.9", "::1", "[::1]", "localhost.")),
        *((host, False) for host in ("0.0.0.0", "::", "192.168.1.5", "example.org", "localhost.example.org", "")),
    ],
)
def test_what_the_machine_alone_reaches_is_loopback(host, is_own):
    assert is_loopback(host) is is_own
