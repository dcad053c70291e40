"""What is refused of MCP servers in a configuration, and what is derived of them."""

import pytest

from modelyard.config import missing_paths, read_keys, validate_config
from modelyard.errors import ConfigError

SMOL = {"model_id": "smol"}
FILES = {"name": "files", "command": "npx"}
WEB = {"name": "web", "url": "https://mcp.example/mcp"}


def config(*servers, models=(SMOL,), **tables):
    return validate_config({"models": list(models), "mcp": {"servers": list(servers)}, **tables})


def problems(*servers, **tables):
    with pytest.raises(ConfigError) as caught:
        config(*servers, **tables)
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("server", "problem"),
    [
        ({}, "it has neither command nor url. Name the program, or the address, of the server."),
        ({"command": "a", "url": "http://a"}, "command and url exclude each other. Keep one of them."),
        ({"url": "http://a", "args": ["b"]}, "args is for servers with command. Remove it."),
        ({"url": "http://a", "env": {"A": "b"}}, "env is for servers with command. Remove it."),
        ({"command": "a", "headers": {"A": "b"}}, "headers is for servers with url. Remove it."),
        ({"command": "a", "transport": "sse"}, "transport is for servers with url. Remove it."),
        ({"command": "a", "bearer_token": "b"}, "bearer_token is for servers with url. Remove it."),
        ({"url": "ftp://a"}, "url is no URL of a server. The transport http takes http://… or https://…."),
        ({"url": "http://"}, "url is no URL of a server. The transport http takes http://… or https://…."),
        ({"url": "http://[a"}, "url is no URL of a server. The transport http takes http://… or https://…."),
        (
            {"url": "http://a", "transport": "websocket"},
            "url is no URL of a server. The transport websocket takes ws://… or wss://….",
        ),
        ({"url": "http://u:p@a"}, "url has a user name or password. Send them with headers or bearer_token."),
        (
            {"url": "http://a", "bearer_token": "b", "headers": {"AUTHORIZATION": "c"}},
            "bearer_token and the header Authorization exclude each other. Keep one of them.",
        ),
        (
            {"command": "a", "tools": ["read", "write"], "exclude": ["write"]},
            "exclude: 'write' is also one of tools. Keep one of them.",
        ),
    ],
)
def test_a_server_that_contradicts_itself_is_refused(server, problem):
    assert problems({"name": "a", **server}) == [f"[[mcp.servers]] 1 ('a'): {problem}"]


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("name", "", "name must be a name of 1 to 64 characters that print"),
        ("name", "a\nb", "name must be a name of 1 to 64 characters that print"),
        ("tool_prefix", "a.b", "tool_prefix must be at most 32 letters, digits, dashes and underscores, in quotes"),
        ("approval", "sometimes", 'approval must be "never", "always", or a list of names of tools'),
        ("approval", [5], 'approval must be "never", "always", or a list of names of tools'),
        ("env", {"A": 5}, "env must be a table of texts"),
        ("env", "A=5", "env must be a table of texts"),
        ("timeout", 0, "timeout must be a number of seconds from 1 to 14400"),
        ("transport", "carrier", 'transport must be one of "http", "sse", "websocket"'),
        ("max_concurrent_calls", 0, "max_concurrent_calls must be a whole number from 1 to 1000"),
        ("commnd", "a", "unknown key 'commnd'. Did you mean 'command'?"),
    ],
)
def test_a_value_that_does_not_fit_is_refused(key, value, expected):
    (problem,) = problems({**FILES, key: value})
    assert f": {expected}" in problem


@pytest.mark.parametrize("size", ["100B", "17MiB", "much", 0])
def test_the_size_of_a_result_has_bounds(size):
    with pytest.raises(ConfigError, match='max_result must be a size from 256 bytes to 16 MiB, such as "64KiB"'):
        validate_config({"models": [SMOL], "mcp": {"max_result": size}})


def test_a_server_needs_a_name():
    assert problems({"command": "a"}) == ["[[mcp.servers]] 1: name is missing."]


def test_names_and_prefixes_belong_to_one_server():
    assert problems(FILES, FILES) == [
        "The name 'files' belongs to more than one of [[mcp.servers]]. Give each its own."
    ]
    assert problems({**FILES, "name": "a.b"}, {**FILES, "name": "a b"}) == [
        "The tool_prefix 'a_b' belongs to more than one of [[mcp.servers]]. Set another tool_prefix for one of them."
    ]
    assert config({**FILES, "name": "a.b"}, {**FILES, "name": "a b", "enabled": False})
    assert config({**FILES, "tool_prefix": ""}, {**WEB, "tool_prefix": ""})


def test_models_and_keys_name_servers_that_exist():
    listed = problems(
        FILES,
        models=[{**SMOL, "mcp": ["file"]}],
        server={"keys": [{"key": "a", "mcp": ["git", "files"]}]},
    )
    assert listed == [
        "[[models]] 1 ('smol'): mcp: 'file' is no MCP server. Did you mean 'files'?",
        "[[server.keys]] 1: mcp: 'git' is no MCP server. Known: files.",
    ]


def test_what_follows_from_another_mistake_is_not_reported():
    assert problems({"name": 5, "command": "a"}, models=[{**SMOL, "mcp": ["a"]}])[0].startswith("[[mcp.servers]] 1")
    assert problems(5) == ["[[mcp.servers]] 1 must be a table."]


def test_a_hundred_servers_are_the_limit():
    servers = [{"name": f"s{number}", "command": "a"} for number in range(101)]
    assert problems(*servers) == ["101 MCP servers are configured, and 100 are the limit."]


def test_the_port_of_mcp_is_another_one():
    with pytest.raises(ConfigError, match="mcp_port and port are both 80"):
        validate_config({"models": [SMOL], "server": {"port": 80, "mcp_port": 80}})


def test_a_port_of_mcp_needs_mcp_to_be_served():
    with pytest.raises(ConfigError, match=r"serve = false in \[mcp\] switches the MCP server off"):
        validate_config({"models": [SMOL], "server": {"mcp_port": 81}, "mcp": {"serve": False}})


def test_the_prefix_is_made_of_the_name_unless_it_is_given():
    prefixes = [
        server.prefix
        for server in config(
            FILES,
            {**WEB, "name": "Brave Search (1)"},
            {**WEB, "name": "名"},
            {**WEB, "name": "x", "tool_prefix": ""},
            {**WEB, "name": "y", "tool_prefix": "why"},
        ).mcp.servers
    ]
    assert prefixes == ["files", "Brave_Search_1", "mcp", "", "why"]


def test_the_transport_follows_from_the_url():
    transports = [
        server.effective_transport
        for server in config(
            FILES, WEB, {"name": "ws", "url": "wss://a"}, {"name": "sse", "url": "http://a", "transport": "sse"}
        ).mcp.servers
    ]
    assert transports == ["stdio", "http", "websocket", "sse"]


def test_approval_is_for_none_all_or_some_tools():
    servers = config(
        FILES, {"name": "a", "command": "a", "approval": "always"}, {"name": "b", "command": "b", "approval": ["rm"]}
    ).mcp.servers
    assert [server.needs_approval("rm") for server in servers] == [False, True, True]
    assert [server.needs_approval("ls") for server in servers] == [False, True, False]


def test_a_key_may_use_the_tools_of_some_servers():
    keys = read_keys(
        config(FILES, server={"keys": [{"key": "a"}, {"key": "b", "mcp": []}, {"key": "c", "mcp": ["files"]}]})
    )
    assert [key.mcp_servers for key in keys] == [None, frozenset(), frozenset({"files"})]


def test_secrets_are_hidden_wherever_a_configuration_is_printed():
    servers = config(
        {**FILES, "env": {"TOKEN": "tell-nobody"}},
        {**WEB, "headers": {"X-Key": "tell-nobody"}, "bearer_token": "tell-nobody"},
    )
    for text in (repr(servers), str(servers), servers.model_dump_json()):
        assert "tell-nobody" not in text
    assert hash(servers)


@pytest.mark.parametrize("host", ["*", "https://a", "a:80", ""])
def test_hosts_that_requests_may_name_are_names(host):
    with pytest.raises(ConfigError, match="allow_request_servers"):
        validate_config({"models": [SMOL], "mcp": {"allow_request_servers": [host]}})


def test_a_program_is_looked_for_on_the_path_that_its_server_has(tmp_path):
    (tmp_path / "own").touch(mode=0o700)
    with_path = {"name": "a", "command": "own", "env": {"PATH": str(tmp_path)}}
    models = [{"model_id": "org/smol"}]
    assert missing_paths(config(with_path, models=models)) == []
    assert len(missing_paths(config({**with_path, "env": {}}, models=models))) == 1


def test_programs_and_folders_of_servers_that_are_missing_are_found():
    found = missing_paths(
        config(
            {**FILES, "command": "/no/program"},
            {"name": "a", "command": "sh", "cwd": "/no/folder"},
            {"name": "b", "command": "sh", "cwd": "/"},
            {"name": "c", "command": "/no/program", "enabled": False},
            WEB,
            models=[{"model_id": "org/smol"}],
        )
    )
    assert [str(problem) for problem in found] == [
        "MCP server 'files': command '/no/program' is not a program of this machine. "
        "Install it, or write its whole path.",
        "MCP server 'a': cwd does not exist: there is no folder /no/folder.",
    ]
