"""`metis-controller`: start a controller."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)

Flag = typer.Option


@app.command()
def controller(
    host: Annotated[str | None, Flag(help="Address to listen on. [METIS_HOST, default 127.0.0.1]")] = None,
    port: Annotated[int | None, Flag(help="Port; 0 takes a free one. [METIS_PORT, default 8080]")] = None,
    data_dir: Annotated[Path | None, Flag(help="Folder of its state. [METIS_DATA_DIR, default .metis]")] = None,
    model_store: Annotated[str | None, Flag(help="OnDisk, InMemory or Redis. [METIS_MODEL_STORE, OnDisk]")] = None,
    lineage_length: Annotated[
        int | None, Flag(help="Updates kept per learner, 0: all. [METIS_LINEAGE_LENGTH, 1]")
    ] = None,
    fsync: Annotated[
        bool | None, Flag("--fsync", help="Wait for the disk: models survive a loss of power. [METIS_FSYNC]")
    ] = None,
    root_certificate: Annotated[str | None, Flag(help="PEM of the authority. [METIS_ROOT_CERTIFICATE]")] = None,
    server_certificate: Annotated[str | None, Flag(help="PEM of this server. [METIS_SERVER_CERTIFICATE]")] = None,
    private_key: Annotated[str | None, Flag(help="PEM of its key. [METIS_PRIVATE_KEY]")] = None,
    insecure: Annotated[bool | None, Flag("--insecure", help="Listen beyond loopback without tokens.")] = None,
    require_tls: Annotated[
        bool | None, Flag("--require-tls", help="Listen beyond loopback by TLS only. [METIS_REQUIRE_TLS]")
    ] = None,
    cacheable_models: Annotated[
        bool | None, Flag("--cacheable-models", help="Let shared caches hold models: who knows a digest may read it.")
    ] = None,
    log_format: Annotated[str | None, Flag(help="auto, text or json. [METIS_LOG_FORMAT]")] = None,
    log_level: Annotated[str | None, Flag(help="debug, info, warning or error. [METIS_LOG_LEVEL]")] = None,
    version: Annotated[bool, Flag("--version", help="Say the version and exit.")] = False,
) -> None:
    """Hold a federation: learners enrol here, the driver ([bold]metis run[/bold]) starts runs here.

    Tokens are read from METIS_OPERATOR_TOKEN, METIS_ENROLL_TOKEN and METIS_VIEWER_TOKEN, or from the files that
    METIS_OPERATOR_TOKEN_FILE and so on name. Without tokens it listens on loopback only and everyone is the operator.
    Where Redis is stands in METIS_MODEL_STORE_URL, or in the file that METIS_MODEL_STORE_URL_FILE names.
    Ends on SIGINT, SIGTERM or [bold]metis shutdown[/bold].
    """
    from services import __version__
    from services.errors import FederationError
    from services.process import failpoints

    if version:
        typer.echo(f"metis-controller {__version__}")
        return
    from .server import serve, settings_from_environment

    flags = {
        "host": host,
        "port": port,
        "data_dir": data_dir,
        "model_store": model_store,
        "lineage_length": lineage_length,
        "fsync": fsync,
        "root_certificate": root_certificate,
        "server_certificate": server_certificate,
        "private_key": private_key,
        "insecure": insecure,
        "require_tls": require_tls,
        "cacheable_models": cacheable_models,
        "log_format": log_format,
        "log_level": log_level,
    }
    try:
        settings = settings_from_environment(**flags)
        if point := os.environ.get("METIS_FAILPOINT"):
            failpoints.arm(point)
        serve(settings)
    except (ValueError, FederationError, OSError) as error:
        typer.echo(f"metis-controller: {_plain(error)}", err=True)
        sys.exit(2)


def _plain(error: Exception) -> str:
    from pydantic import ValidationError

    from services.config import explain

    return "; ".join(explain(error)) if isinstance(error, ValidationError) else str(error)


def main() -> None:
    """Entry point of the script."""
    app()


if __name__ == "__main__":
    main()
