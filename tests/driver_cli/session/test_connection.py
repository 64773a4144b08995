"""Where the controller is, and with which token."""

from __future__ import annotations

from pathlib import Path

import pytest

from driver_cli.session.connection import connection_to
from services import ClientParams, ServerParams
from services.errors import InvalidConfig


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("METIS_CONTROLLER_URL", "METIS_ROOT_CERTIFICATE", "METIS_REQUIRE_TLS"):
        monkeypatch.delenv(name, raising=False)
    for name in ("METIS_TOKEN", "METIS_OPERATOR_TOKEN"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(f"{name}_FILE", raising=False)


def test_address_may_be_written_in_any_usual_form(monkeypatch: pytest.MonkeyPatch) -> None:
    """A URL, host and port, parameters, or the environment; an address to listen on becomes one to call."""
    assert connection_to("localhost:9000").url == "http://localhost:9000"
    assert connection_to("https://fl.example/").url == "https://fl.example/"
    assert connection_to(ServerParams("0.0.0.0", 9000)).url == "http://127.0.0.1:9000"
    assert connection_to(ClientParams("::1", 9000)).url == "http://[::1]:9000"
    assert connection_to(None).url == "http://localhost:8080"
    monkeypatch.setenv("METIS_CONTROLLER_URL", "http://of-the-environment:1")
    assert connection_to(None).url == "http://of-the-environment:1"


@pytest.mark.parametrize("url", ["ftp://host", "http://", "http://host:port", "http://host:99999", "://"])
def test_what_is_no_address_is_refused(url: str) -> None:
    """The message repeats what was given."""
    with pytest.raises(InvalidConfig, match=url):
        connection_to(url)


def test_root_certificate_of_the_parameters_is_kept() -> None:
    """TLS parameters of a controller serve its driver."""
    assert connection_to(ClientParams("host", 1, "ca.pem")).root_certificate == "ca.pem"


def test_token_is_the_first_that_is_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Option, METIS_TOKEN, METIS_TOKEN_FILE, then the operator's."""
    file = tmp_path / "token"
    file.write_text("of-the-file\n")
    monkeypatch.setenv("METIS_OPERATOR_TOKEN", "operator")
    assert connection_to("h").token == "operator"
    monkeypatch.setenv("METIS_TOKEN_FILE", str(file))
    assert connection_to("h").token == "of-the-file"
    monkeypatch.setenv("METIS_TOKEN", "own")
    assert connection_to("h").token == "own"
    assert connection_to("h", "given").token == "given"


def test_bad_token_is_refused_without_being_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong file is named; a token is never repeated, nor part of a connection's text."""
    with pytest.raises(InvalidConfig) as refused:
        connection_to("h", "se cret")
    assert "se cret" not in str(refused.value)
    assert "secret" not in repr(connection_to("h", "secret"))
    (tmp_path / "empty").write_text("\n")
    monkeypatch.setenv("METIS_TOKEN_FILE", str(tmp_path / "empty"))
    with pytest.raises(InvalidConfig, match="empty"):
        connection_to("h")


HERE = ("http://localhost:1", "http://127.0.0.1:1", "http://[::1]:1", "https://fl.example")
ELSEWHERE = ("http://fl.example", "http://10.0.0.7:8080", "http://localhost.example", "http://[2001:db8::1]")


def test_a_token_in_clear_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    """Once for a connection that would send one to another machine by http; the token is not shown."""
    for url in (*HERE, *ELSEWHERE):
        connection_to(url)
    for url in HERE:
        connection_to(url, "secret-token")
    assert not caplog.messages
    for url in ELSEWHERE:
        connection_to(url, "secret-token")
    warning = "metis: the token travels in clear to {}: give an https address"
    assert caplog.messages == [warning.format(url) for url in ELSEWHERE]
    assert "secret" not in caplog.text


def test_tls_can_be_required(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the parameter or METIS_REQUIRE_TLS: such a connection is refused, with what to do."""
    for url in HERE:
        assert connection_to(url, "secret-token", require_tls=True).url == url
    for url in ELSEWHERE:
        assert connection_to(url, require_tls=True).url == url
        with pytest.raises(InvalidConfig, match="would get the token in clear: give an https address"):
            connection_to(url, "secret-token", require_tls=True)
    monkeypatch.setenv("METIS_REQUIRE_TLS", "yes")
    with pytest.raises(InvalidConfig, match="TLS is required"):
        connection_to("fl.example", "secret-token")
    monkeypatch.setenv("METIS_REQUIRE_TLS", "perhaps")
    with pytest.raises(InvalidConfig, match="METIS_REQUIRE_TLS: write true or false"):
        connection_to("fl.example", "secret-token")
