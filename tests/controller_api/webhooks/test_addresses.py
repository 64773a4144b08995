"""Which callbacks webhooks may go to: a corpus of the ways to name an inner address."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence

import pytest

from controller_api.settings import Settings
from controller_api.webhooks import addresses
from controller_api.webhooks.addresses import Addresses
from services.errors import InvalidRequest, Unavailable
from tests.controller_api.driving import TOKENS

LOCAL = Settings(model_store="InMemory")
BEYOND = Settings(host="192.0.2.1", insecure=True, model_store="InMemory")  # listens beyond loopback


class Names:
    """A resolver with answers of its own; counts how often it was asked."""

    def __init__(self, **known: Sequence[str] | Exception) -> None:
        self.known = known
        self.asked = 0

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        """The addresses of a host, or the error of looking for them."""
        self.asked += 1
        found = self.known[host.partition(".")[0]]
        if isinstance(found, Exception):
            raise found
        return found


def allowing(*networks: str, host: str = "192.0.2.1") -> Settings:
    """A controller beyond loopback whose operator allows these networks."""
    return Settings(host=host, insecure=True, model_store="InMemory", callback_networks=networks)


INNER = [
    *("127.0.0.1", "127.9.9.9", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1"),
    *("169.254.169.254", "100.64.0.1", "192.0.0.9", "192.0.2.7", "198.18.0.1", "198.51.100.1", "203.0.113.1"),
    *("192.88.99.1", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255"),
    *("[::]", "[::1]", "[::127.0.0.1]", "[::8.8.8.8]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::ffff:10.0.0.1]"),
    *("[::ffff:0:127.0.0.1]", "[::ffff:0:8.8.8.8]", "[64:ff9b::127.0.0.1]", "[64:ff9b::808:808]", "[64:ff9b:1::1]"),
    *("[2002:7f00:1::]", "[2002:808:808::1]", "[2001::1]", "[2001:db8::1]", "[3fff::1]", "[100::1]", "[5f00::1]"),
    *("[fc00::1]", "[fd12:3456::1]", "[fe80::1]", "[fe80::1%25lo]", "[fec0::1]", "[ff02::1]", "[4000::1]"),
]
OUTER = ["8.8.8.8", "192.31.196.1", "[2606:2800:220:1::1]", "[2a00::1]", "[::ffff:8.8.8.8]"]


@pytest.mark.parametrize("host", INNER)
async def test_inner_addresses_are_refused(host: str) -> None:
    """No address but a global one, in none of the ways to write it."""
    with pytest.raises(InvalidRequest, match="leads to"):
        await Addresses(BEYOND).target(f"http://{host}:8080/poll-now")


@pytest.mark.parametrize("host", INNER)
async def test_names_of_inner_addresses_are_refused(host: str) -> None:
    """A name counts as what it resolves to, also when a public address stands beside it."""
    inner = host.strip("[]").replace("%25", "%")
    names = Names(alone=[inner], beside=["8.8.8.8", inner])
    for name in ("alone.example", "beside.example"):
        with pytest.raises(InvalidRequest, match="leads to"):
            await Addresses(BEYOND, names).target(f"https://{name}/")


@pytest.mark.parametrize("host", OUTER)
async def test_global_addresses_are_allowed(host: str) -> None:
    """The same check lets public addresses pass: IPv4, IPv6, and IPv4 in the clothes of IPv6."""
    target = await Addresses(BEYOND).target(f"http://{host}:8080/")
    assert [str(one) for one in target.addresses] == [host.strip("[]").removeprefix("::ffff:")]


@pytest.mark.parametrize(
    "host", ["2130706433", "0x7f000001", "127.1", "0x7f.1", "017700000001", "0177.0.0.1", "localhost", "localhost."]
)
async def test_other_spellings_of_loopback_are_refused(host: str) -> None:
    """Numbers that the system's resolver takes for addresses (octal, hexadecimal, short), and the name itself."""
    with pytest.raises(InvalidRequest):
        await Addresses(BEYOND).target(f"http://{host}:8080/")


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost", "[::ffff:127.0.0.1]", "127.1"])
async def test_a_controller_on_loopback_without_tokens_may_call_loopback(host: str) -> None:
    """Where only this machine reaches the controller, its learners are on this machine. With tokens it may be behind a
    proxy, and whoever enrols anywhere; then the operator's list decides, if it names loopback itself."""
    target = await Addresses(LOCAL).target(f"http://{host}:8080/")
    assert all(one.is_loopback for one in target.addresses)
    guarded = Settings(model_store="InMemory", **TOKENS)
    with pytest.raises(InvalidRequest, match="METIS_CALLBACK_NETWORKS"):
        await Addresses(guarded).target(f"http://{host}:8080/")
    listed = guarded.model_copy(update={"callback_networks": ("127.0.0.0/8", "::1/128")})
    assert (await Addresses(listed).target(f"http://{host}:8080/")).addresses == target.addresses


@pytest.mark.parametrize("host", ["10.0.0.1", "169.254.169.254", "0.0.0.0", "[::]", "[fd00::1]"])
async def test_a_controller_on_loopback_may_not_call_other_inner_addresses(host: str) -> None:
    """Loopback opens loopback alone."""
    with pytest.raises(InvalidRequest):
        await Addresses(LOCAL).target(f"http://{host}:8080/")


async def test_the_operator_allows_private_networks() -> None:
    """Within METIS_CALLBACK_NETWORKS, and not beside it; the refusal names the setting."""
    chosen = Addresses(allowing("10.1.0.0/16", "fd00:1::/32"))
    for host in ("10.1.2.3", "[fd00:1::5]", "[::ffff:10.1.2.3]"):
        assert (await chosen.target(f"http://{host}:8080/")).addresses
    for host in ("10.2.0.1", "[fd00:2::5]"):
        with pytest.raises(InvalidRequest, match="METIS_CALLBACK_NETWORKS"):
            await chosen.target(f"http://{host}:8080/")


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "0.0.0.0", "[::]", "224.0.0.1", "[ff02::1]"])
async def test_no_network_allows_loopback(host: str) -> None:
    """An allow-list of everything does not hold the machine itself, nor what is no machine."""
    with pytest.raises(InvalidRequest):
        await Addresses(allowing("0.0.0.0/0", "::/0")).target(f"http://{host}:8080/")


@pytest.mark.parametrize(
    "url",
    [
        *("", "/poll-now", "//8.8.8.8/", "8.8.8.8:8080", "http://", "http:///x", "http://[::1", "http://8.8.8.8:x/"),
        *("ftp://8.8.8.8:8080/", "file:///etc/passwd", "gopher://8.8.8.8:8080/", "javascript:alert(1)"),
        *("http://user@8.8.8.8/", "http://user:word@8.8.8.8/", "http://8.8.8.8\\@127.0.0.1/", "http://a\r\nb/"),
        *("http://8.8.8.8:0/", "http://8.8.8.8:22/", "http://8.8.8.8:1023/", "http://8.8.8.8:65536/"),
    ],
)
async def test_other_urls_are_refused(url: str) -> None:
    """http and https, to a host, without credentials, to ports 80, 443 and from 1024 on."""
    with pytest.raises(InvalidRequest, match="callback_url"):
        await Addresses(allowing("0.0.0.0/0")).target(url)


@pytest.mark.parametrize(
    "where", ["http://8.8.8.8", "https://8.8.8.8/", *(f"http://8.8.8.8:{p}/" for p in (443, 1024))]
)
async def test_ports_of_the_web_and_free_ones_are_allowed(where: str) -> None:
    """The counterpart of the refused ports."""
    assert (await Addresses(BEYOND).target(where)).addresses


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), InvalidRequest),
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"), Unavailable),
        (UnicodeError("label too long"), InvalidRequest),
        ([], InvalidRequest),
    ],
)
async def test_a_name_that_does_not_resolve(answer: Sequence[str] | Exception, error: type[Exception]) -> None:
    """A name that is none is refused for good; one that cannot be looked up now may be tried again."""
    with pytest.raises(error, match="learner"):
        await Addresses(BEYOND, Names(learner=answer)).target("http://learner.example/")


async def test_resolving_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server that does not answer ends in Unavailable."""

    async def silent(host: str, port: int) -> Sequence[str]:
        await asyncio.Event().wait()
        return []

    monkeypatch.setattr(addresses, "RESOLVE_S", 0.05)
    async with asyncio.timeout(5):
        with pytest.raises(Unavailable):
            await Addresses(BEYOND, silent).target("http://learner.example/")


async def test_a_name_is_looked_up_once() -> None:
    """What was judged is what is connected to: there is no second look-up between the two."""
    names = Names(learner=["8.8.8.8", "8.8.8.8"])
    target = await Addresses(BEYOND, names).target("http://learner.example/")
    assert ([str(one) for one in target.addresses], names.asked) == (["8.8.8.8"], 1)


async def test_the_refusal_does_not_tell_what_a_name_resolves_to() -> None:
    """Who may enrol does not get to read the controller's inner name service."""
    with pytest.raises(InvalidRequest) as caught:
        await Addresses(BEYOND, Names(db=["10.7.7.7"])).target("http://db.internal/")
    assert "10.7.7.7" not in f"{caught.value} {caught.value.values}"
