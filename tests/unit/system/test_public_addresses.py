"""Which addresses are public, and those of a name."""

from __future__ import annotations

import asyncio
import ipaddress

import pytest

from modelyard.system.public_addresses import is_public, resolved


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"]
)
def test_the_open_internet_is_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0", "10.0.0.1", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.8.8.8", "169.254.169.254",
        "172.16.0.1", "192.0.0.192", "192.168.1.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255",
        "::", "::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1", "2002:7f00:1::",
        "2001:0:4136:e378:8000:63bf:80ff:fffe", "fc00::1", "fd00:ec2::254", "fe80::1", "fec0::1", "ff02::1",
    ],
)  # fmt: skip
def test_this_machine_its_network_and_metadata_are_not(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


async def test_a_name_has_all_its_addresses_without_zones(monkeypatch: pytest.MonkeyPatch) -> None:
    async def resolve(*_: object, **__: object) -> list[tuple[int, int, int, str, tuple[str, int]]]:
        return [(2, 1, 6, "", (address, 80)) for address in ("1.1.1.1", "fe80::1%eth0")]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
    assert [str(address) for address in await resolved("a.example", 80)] == ["1.1.1.1", "fe80::1"]


async def test_a_name_without_an_address_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    async def resolve(*_: object, **__: object) -> list[object]:
        return []

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
    with pytest.raises(OSError, match="no address"):
        await resolved("a.example", 80)


@pytest.mark.parametrize("name", ["a..example", f"{'a' * 64}.example"])
async def test_a_name_that_no_host_can_have_is_not_known(name: str) -> None:
    with pytest.raises(OSError, match="no name of a host"):
        await resolved(name, 80)
