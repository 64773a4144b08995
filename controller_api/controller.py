"""`Controller(...).start()`: the controller as MetisFL's users know it."""

from __future__ import annotations

from services import ControllerConfig, ModelStoreConfig, ServerParams


class Controller:
    """A controller process: where it listens, the defaults of its runs, where its models live.

    Tokens and limits come from the environment (`METIS_*`, see docs/deploying.md). Without tokens it listens on
    loopback only.
    """

    def __init__(
        self,
        server_params: ServerParams | None = None,
        controller_config: ControllerConfig | None = None,
        model_store_config: ModelStoreConfig | None = None,
    ) -> None:
        self.server_params = server_params or ServerParams()
        self.controller_config = controller_config or ControllerConfig()
        self.model_store_config = model_store_config or ModelStoreConfig()

    def start(self) -> None:
        """Serve until SIGINT, SIGTERM or `POST /v1/shutdown`. Raises ValueError for settings that cannot work."""
        from .server import serve, settings_from_environment  # fastapi is slow to import: not with this module

        where = self.server_params
        settings = settings_from_environment(
            host=where.hostname,
            port=where.port,
            root_certificate=where.root_certificate,
            server_certificate=where.server_certificate,
            private_key=where.private_key,
        )
        serve(settings, self.controller_config, self.model_store_config)
