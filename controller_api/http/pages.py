"""The pages that the controller serves itself: its status page, `/docs`, the protocol, and their static files.

A file is served because it stands in `FILES`; no name from the network becomes a path. Every page works without any
other origin: its content security policy (W3C CSP Level 3) allows this one alone, and no script or style in the page.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from services.errors import NotFound, PreconditionFailed

from ..headers import names_tag

HERE = Path(__file__).parent.parent / "static"
# A wheel has the page among the static files (pyproject.toml), a working copy where people read it.
PROTOCOL = next((at for at in (HERE / "protocol.md", HERE.parents[1] / "docs/protocol.md") if at.is_file()), None)
SWAGGER = "fastapi_offline"  # the package that carries the assets of Swagger UI; they are read, it is not imported

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
DOCS_POLICY = POLICY.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'")  # Swagger UI sets style attributes

COMMENT = re.compile(r"^ *<!--.*?-->\n", re.MULTILINE)
HTML = "text/html; charset=utf-8"
CSS = "text/css; charset=utf-8"
SCRIPT = "text/javascript; charset=utf-8"
FILES = {  # name under /static/ -> (its folder, its media type); None is the folder of Swagger UI
    "page.css": (HERE, CSS),
    "page.js": (HERE, SCRIPT),
    "api.js": (HERE, SCRIPT),
    "words.js": (HERE, SCRIPT),
    "dom.js": (HERE, SCRIPT),
    "overview.js": (HERE, SCRIPT),
    "tables.js": (HERE, SCRIPT),
    "curve.js": (HERE, SCRIPT),
    "docs.css": (HERE, CSS),
    "docs.js": (HERE, SCRIPT),
    "protocol.css": (HERE, CSS),
    "icon.svg": (HERE, "image/svg+xml"),
    "swagger-ui.css": (None, CSS),
    "swagger-ui-bundle.js": (None, SCRIPT),
}


@dataclass(frozen=True)
class Page:
    """A file as it is sent."""

    body: bytes
    headers: dict[str, str]

    def answer(self, request: Request) -> Response:
        """200 with the body (without it for HEAD), or 304 when the client holds it (RFC 9110, section 13.1.2)."""
        if not names_tag(request.headers.get("if-match", "*"), self.headers["ETag"], strong=True):
            raise PreconditionFailed("the page is another now, which If-Match does not name")
        if names_tag(request.headers.get("if-none-match", ""), self.headers["ETag"]):
            return Response(status_code=304, headers=self.headers)
        if request.method == "HEAD":
            return Response(headers={**self.headers, "Content-Length": str(len(self.body))})
        return Response(self.body, headers=self.headers)


def page_routes() -> list[BaseRoute]:
    """GET and HEAD of `/`, `/docs`, `/docs/protocol` and `/static/{name}`; raises NotFound for a name that is not in
    `FILES`."""

    async def status(request: Request) -> Response:
        return page(HERE / "index.html", HTML, POLICY).answer(request)

    async def docs(request: Request) -> Response:
        return page(HERE / "docs.html", HTML, DOCS_POLICY).answer(request)

    async def protocol(request: Request) -> Response:
        return protocol_page().answer(request)

    async def static(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in FILES:
            raise NotFound(f"there is no file {name!r}", name=name)
        folder, media_type = FILES[name]
        return page((folder or swagger()) / name, media_type, POLICY).answer(request)

    return [
        Route("/", status, methods=["GET"], include_in_schema=False),
        Route("/docs", docs, methods=["GET"], include_in_schema=False),
        Route("/docs/protocol", protocol, methods=["GET"], include_in_schema=False),
        Route("/static/{name}", static, methods=["GET"], include_in_schema=False),
    ]


@functools.cache
def page(path: Path, media_type: str, policy: str) -> Page:
    """The file, read once."""
    return _page(path.read_bytes(), media_type, policy)


@functools.cache
def protocol_page() -> Page:
    """docs/protocol.md as HTML, made once. Links that lead to other files of the repository are text here."""
    if PROTOCOL is None:
        raise NotFound("the page docs/protocol.md is not installed")
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = markdown.parse(COMMENT.sub("", PROTOCOL.read_text(encoding="utf-8")))
    for head, inline in itertools.pairwise(tokens):
        if head.type == "heading_open":
            head.attrSet("id", re.sub(r"[^\w\- ]", "", _text(inline).lower()).replace(" ", "-"))
        leads_out = False
        for child in inline.children or []:
            if child.type == "link_open":
                leads_out = not str(child.attrGet("href")).startswith("#")
            if child.type in ("link_open", "link_close"):
                child.hidden = leads_out
    text = markdown.renderer.render(tokens, markdown.options, {})
    frame = (HERE / "protocol.html").read_text(encoding="utf-8")
    return _page(frame.replace("<!-- the page -->", text).encode(), HTML, POLICY)


def _text(inline: Token) -> str:
    return "".join(child.content for child in inline.children or [])


def _page(body: bytes, media_type: str, policy: str) -> Page:
    return Page(
        body,
        {
            "Content-Type": media_type,
            "Content-Security-Policy": policy,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-cache",
            "ETag": f'"{hashlib.sha256(body).hexdigest()[:32]}"',
        },
    )


@functools.cache
def swagger() -> Path:
    """The folder of Swagger UI's assets. `find_spec` of a top-level package does not run its `__init__`."""
    spec = find_spec(SWAGGER)
    if spec is None or not spec.submodule_search_locations:
        raise NotFound(f"the package {SWAGGER}, which carries the assets of /docs, is not installed")
    return Path(next(iter(spec.submodule_search_locations))) / "static"
