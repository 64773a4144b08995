"""Where and how a controller process runs: `METIS_*` variables, each overridden by a flag of `metis-controller`.

A token may also be given as `METIS_…_TOKEN_FILE`, the path of a file that holds it, and the URL of the model store as
`METIS_MODEL_STORE_URL_FILE`.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from services.rest import is_loopback

MEBIBYTE = 1 << 20


Listed = Annotated[tuple[str, ...], NoDecode]
LISTS = ("callback_networks", "allowed_hosts", "allowed_origins", "trusted_proxies")


class Settings(BaseSettings):
    """Settings of one controller process."""

    model_config = SettingsConfigDict(
        env_prefix="METIS_", extra="ignore", frozen=True, populate_by_name=True, hide_input_in_errors=True
    )

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8080, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    data_dir: Path = Field(Path(".metis"), description="folder of the controller's state")
    model_store: str = Field("OnDisk", description="OnDisk, InMemory or Redis")
    model_store_url: SecretStr | None = Field(None, description="of Redis: redis://:password@host:port/0, or rediss://")
    model_store_prefix: str = Field(
        "metis:", min_length=1, max_length=100, description="Redis: of this controller's keys, and of no other's"
    )
    lineage_length: int = Field(1, ge=0, description="updates kept per learner; 0 keeps all")
    fsync: bool = Field(False, description="OnDisk: models survive a loss of power too, for a wait for the disk each")
    enroll_token: SecretStr | None = Field(None, description="a learner shows it to enrol")
    operator_token: SecretStr | None = Field(None, description="may do everything")
    viewer_token: SecretStr | None = Field(None, description="may read everything but weights")
    insecure: bool = Field(False, description="listen beyond loopback without tokens")
    require_tls: bool = Field(False, description="listen beyond loopback by TLS only")
    root_certificate: str | None = Field(None, description="PEM file of the certificate authority")
    server_certificate: str | None = Field(None, description="PEM file")
    private_key: str | None = Field(None, description="PEM file")
    cacheable_models: bool = Field(False, description="let shared caches hold models: a digest is then the capability")
    max_model_bytes: int = Field(2048 * MEBIBYTE, gt=0, description="largest weights document")
    max_json_bytes: int = Field(MEBIBYTE, gt=0, description="largest JSON body")
    upload_slots: int = Field(8, ge=1, description="large uploads that are read at once")
    body_timeout_s: float = Field(60.0, gt=0, description="longest silence within a body")
    body_rate: int = Field(16_000, gt=0, description="slowest that a body may come, in bytes per second")
    body_window_s: float = Field(30.0, gt=0, description="what it is measured over while others wait for a slot")
    body_total_s: float = Field(60.0, gt=0, description="time that every body has, however short it is")
    upload_takeover_s: float = Field(2.0, gt=0, description="silence after which another upload of a task takes over")
    tls_handshake_s: float = Field(10.0, gt=0, description="time for a TLS hand-shake")
    told_bytes: int = Field(4 * MEBIBYTE, ge=0, description="metrics and metadata that a learner may tell in a run")
    join_rate: float = Field(20.0, gt=0, description="learners that may enrol per second in the long run")
    join_burst: int = Field(2000, ge=1, description="learners that may enrol at once")
    callback_networks: Listed = Field(
        (), description="private networks (CIDR, comma-separated) to which webhooks may go"
    )
    allowed_hosts: Listed = Field((), description="without tokens: names (comma-separated) under which it answers too")
    allowed_origins: Listed = Field((), description="origins (comma-separated) whose web pages may call, with tokens")
    stranger_connections: int = Field(64, ge=1, description="with tokens: connections of an address that show none")
    trusted_proxies: Listed = Field(
        (), description="networks (CIDR, comma-separated) whose X-Forwarded-For is believed"
    )
    log_format: str = Field("auto", pattern="^(auto|json|text)$", description="auto: text on a terminal, else json")
    log_level: str = Field("info", pattern="^(debug|info|warning|error)$")

    @model_validator(mode="before")
    @classmethod
    def _split(cls, values: Any) -> Any:
        for name in LISTS if isinstance(values, dict) else ():
            if isinstance(given := values.get(name), str):
                values[name] = tuple(part.strip() for part in given.split(",") if part.strip())
        return values

    @model_validator(mode="after")
    def _check(self) -> Self:
        tls = [self.root_certificate, self.server_certificate, self.private_key]
        if any(tls) and not all(tls):
            raise ValueError("TLS needs root_certificate, server_certificate and private_key, or none of them")
        for network in (*self.callback_networks, *self.trusted_proxies):
            ipaddress.ip_network(network)
        for origin in self.allowed_origins:
            if not _is_origin(origin):
                raise ValueError(f"METIS_ALLOWED_ORIGINS: {origin!r} is no origin: https://name, or https://name:port")
        tokens = [t.get_secret_value() for t in (self.enroll_token, self.operator_token, self.viewer_token) if t]
        if any(len(token) < 16 for token in tokens) or len(set(tokens)) < len(tokens):
            raise ValueError("tokens must differ and have at least 16 characters: openssl rand -base64 32 makes one")
        if tokens and self.operator_token is None:
            raise ValueError("an operator token is needed beside the others: METIS_OPERATOR_TOKEN")
        if not tokens and self.allowed_origins:
            raise ValueError(
                "METIS_ALLOWED_ORIGINS needs tokens: without them every page that it names is the operator"
            )
        if not tokens and not self.on_loopback and not self.insecure:
            raise ValueError(
                f"refusing to listen on {self.host} without tokens: set METIS_OPERATOR_TOKEN and METIS_ENROLL_TOKEN"
                " (or their _FILE forms), or pass --insecure to let everyone in"
            )
        if self.require_tls and self.in_clear:
            raise ValueError(
                f"refusing to listen on {self.host} without TLS: give root_certificate, server_certificate and"
                " private_key, or listen on 127.0.0.1 behind a proxy that ends TLS"
            )
        return self

    @property
    def in_clear(self) -> bool:
        """Whether tokens, and models, travel where others can read them."""
        return self.server_certificate is None and not self.on_loopback

    @property
    def open(self) -> bool:
        """Whether no token is configured: a caller without a credential is then the operator."""
        return self.operator_token is None

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine can reach the controller."""
        return is_loopback(self.host)


def _is_origin(text: str) -> bool:
    """Whether a browser would say this in Origin (RFC 6454, section 6.2)."""
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return (
        parts.scheme in ("http", "https")
        and bool(parts.hostname)
        and text == f"{parts.scheme}://{parts.netloc.lower()}"
    )
