"""Whoever is refused while it still sends gets to read why, on every way to the controller, by every kind of client."""

from __future__ import annotations

import functools
import http.client
import json
import os
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import Process, free_port
from tests.controller_api.driving import MSGPACK, OPERATOR, TOKENS, VIEWER
from tests.controller_api.webhooks.receiver import certificate

BODY = 30_000_000
MODEL = "/v1/models/sha256-" + "0" * 64
LIMITS = {"METIS_MAX_MODEL_BYTES": "40000000"}
TIMES = 3 if os.environ.get("METIS_ATTACKS") == "all" else 1
CLIENTS = Path(__file__).parent / "clients"


@dataclass(frozen=True)
class Way:
    """To a controller: the port under which it is reached, and its certificate where there is TLS."""

    port: int
    certificate: Path | None


@dataclass(frozen=True)
class Refused:
    """A request with a large body, and the status of its answer."""

    status: int
    method: str
    path: str
    media: str
    token: str | None


RESULT = "/v1/tasks/0123456789abcdef/result"
REFUSALS = [
    Refused(401, "PUT", MODEL, MSGPACK, None),
    Refused(403, "PUT", MODEL, MSGPACK, VIEWER),
    Refused(404, "PUT", RESULT, MSGPACK, OPERATOR),
    Refused(404, "PATCH", RESULT, "application/partial-upload", OPERATOR),
    Refused(405, "POST", MODEL, MSGPACK, OPERATOR),
    Refused(413, "POST", "/v1/runs", "application/json", OPERATOR),
    Refused(415, "PUT", MODEL, "text/plain", OPERATOR),
    Refused(422, "PUT", MODEL, MSGPACK, OPERATOR),
]
NGINX = """
daemon off; error_log {folder}/nginx.err; pid {folder}/nginx.pid; events {{}}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/temp;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{
    listen 127.0.0.1:{port}; client_max_body_size 0; proxy_request_buffering off; proxy_http_version 1.1;
    location / {{ proxy_pass http://127.0.0.1:{behind}; }}
  }}
}}
"""


@pytest.fixture(params=["plain", "tls", "nginx"])
def way(request: pytest.FixtureRequest, start: Callable[..., Process], tmp_path: Path) -> Iterator[Way]:
    """To a controller with tokens."""
    own = {f"METIS_{name.upper()}": value for name, value in TOKENS.items()} | LIMITS
    made = None
    if request.param == "tls":
        made, key = certificate(tmp_path, "localhost")
        own |= {
            "METIS_ROOT_CERTIFICATE": str(made),
            "METIS_SERVER_CERTIFICATE": str(made),
            "METIS_PRIVATE_KEY": str(key),
        }
    behind, port = free_port(), free_port()
    where = ("--host", "127.0.0.1", "--port", str(behind), "--data-dir", str(tmp_path / "controller"))
    start("controller", "-m", "controller_api", *where, **own)
    listens(behind)
    if request.param != "nginx":
        yield Way(behind, made)
        return
    conf = tmp_path / "nginx.conf"
    conf.write_text(NGINX.format(folder=tmp_path, port=port, behind=behind))
    with subprocess.Popen([found("nginx"), "-c", str(conf), "-e", str(tmp_path / "nginx.err")]) as proxy:
        listens(port)
        yield Way(port, None)
        proxy.terminate()


def listens(port: int) -> None:
    """Returns once somebody does."""
    for _ in range(300):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError(f"nobody listens on port {port}")


def by_http_client(way: Way, refused: Refused) -> int:
    """As Python's own client sends it: the whole body, then the answer is read."""
    if way.certificate is None:
        connection = http.client.HTTPConnection("localhost", way.port, timeout=60)
    else:
        context = ssl.create_default_context(cafile=str(way.certificate))
        connection = http.client.HTTPSConnection("localhost", way.port, timeout=60, context=context)
    headers = {"Content-Type": refused.media} | ({"Authorization": f"Bearer {refused.token}"} if refused.token else {})
    connection.request(refused.method, refused.path, bytes(BODY), headers)
    answer = connection.getresponse()
    assert json.loads(answer.read())["status"] == answer.status
    connection.close()
    return answer.status


def by_undici(way: Way, refused: Refused) -> int:
    """As Node's fetch sends it."""
    given = {"METIS_BODY": str(BODY)}
    if way.certificate is not None:
        given["NODE_EXTRA_CA_CERTS"] = str(way.certificate)
    return told_by([found("node"), str(CLIENTS / "refused.mjs")], way, refused, given)


def by_java(way: Way, refused: Refused) -> int:
    """As java.net.http sends it."""
    if way.certificate is not None:
        pytest.skip("trusts a store of its own")
    return told_by([found("java"), str(CLIENTS / "Refused.java")], way, refused, {"METIS_BODY": str(BODY)})


@functools.cache
def compiled() -> str:
    """The client in Rust's standard library."""
    made = Path(tempfile.mkdtemp()) / "refused"
    subprocess.run([found("rustc"), "-O", "-o", str(made), str(CLIENTS / "refused.rs")], check=True, timeout=300)
    return str(made)


def by_rust(way: Way, refused: Refused) -> int:
    """As somebody writes it by hand: everything is sent, then everything is read up to the end of the connection."""
    if way.certificate is not None:
        pytest.skip("there is no TLS in it")
    return told_by([compiled()], way, refused, {"METIS_BODY": str(BODY)})


def found(program: str) -> str:
    """Its path; skips the test where it is not installed."""
    path = shutil.which(program) or shutil.which(program, path=str(Path.home() / ".cargo" / "bin"))
    if path is None:
        pytest.skip(f"there is no {program} here")
    return path


def told_by(command: list[str], way: Way, refused: Refused, environment: dict[str, str]) -> int:
    """What a client in another language prints: the status of the answer, and that in its body."""
    url = f"{'http' if way.certificate is None else 'https'}://localhost:{way.port}"
    arguments = [url, refused.method, refused.path, refused.media, refused.token or ""]
    done = subprocess.run(
        [*command, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    status, body = done.stdout.split(maxsplit=1)
    assert json.loads(body[body.index("{") : body.rindex("}") + 1])["status"] == int(status)
    return int(status)


@pytest.mark.parametrize("client", [by_http_client, by_undici, by_java, by_rust])
def test_every_refusal_of_a_large_body_is_read_whole(way: Way, client: Callable[[Way, Refused], int]) -> None:
    """Before a byte of it was read, while it is read, and once it is whole."""
    for refused in REFUSALS:
        for _ in range(TIMES):
            assert client(way, refused) == refused.status, refused
