"""The console put together: pages, API, access, and the headers of every answer."""

from __future__ import annotations

import functools
from importlib import resources
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from adsmig import __version__
from adsmig.errors import AdsmigError, UsageError
from adsmig.web import api, newjob, pages, scheduled, text
from adsmig.web.access import Access
from adsmig.web.console import Console, Refused
from adsmig.web.jobs import Jobs
from adsmig.web.pages import is_program, page
from adsmig.web.shown import FILTERS

MOST_SENT = 1 << 20
"""Bytes of a request's body."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self';"
    " img-src 'self'; connect-src 'self'; form-action 'self'; frame-ancestors 'none';"
    " base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}
DESCRIPTION = (
    "What the pages of the console do. Send the key that stands in"
    " ~/.config/adsmig/console-key as Authorization: Bearer KEY."
)


def make_app(console: Console, access: Access, language: str = "") -> ASGIApp:
    """The ASGI application; ``language``: of who has not chosen one, '' for the browser's."""
    app = FastAPI(
        title="adsmig",
        version=__version__,
        description=DESCRIPTION,
        docs_url=None,  # it would come from elsewhere
        redoc_url=None,
        openapi_url="/api/openapi.json",
    )
    app.state.console, app.state.access, app.state.jobs = console, access, Jobs(console)
    app.state.templates = templates()
    app.include_router(pages.open_router)
    app.include_router(newjob.router)
    app.include_router(scheduled.router)
    app.include_router(pages.router)
    app.include_router(api.router)
    app.include_router(api.metrics_router)
    app.mount("/static", StaticFiles(packages=[("adsmig.web", "static")]))
    app.add_exception_handler(AdsmigError, _adsmig_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    return _Outermost(app, language)


@functools.cache
def templates() -> Environment:
    """What pages are made with; text is escaped, and in the language of the request."""
    environment = Environment(
        loader=PackageLoader("adsmig.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.i18n"],
    )
    environment.install_gettext_callables(  # type: ignore[attr-defined]
        text.gettext, text.ngettext, newstyle=True
    )
    environment.filters.update(FILTERS)
    environment.globals.update(version=__version__, assets=_assets())
    return environment


def _assets() -> str:
    """What makes browsers ask again for scripts and styles that are no longer the same."""
    import zlib

    there = resources.files("adsmig.web").joinpath("static").iterdir()
    return f"{zlib.crc32(b''.join(sorted(one.read_bytes() for one in there))):08x}"


class _Outermost:
    """Sets the language of each request, limits its body, and adds headers to its answer."""

    def __init__(self, app: ASGIApp, language: str) -> None:
        self._app, self._language = app, language

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        text.language.set(text.preferred(request, self._language))

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                if request.url.scheme == "https":
                    headers["Strict-Transport-Security"] = "max-age=31536000"
                if request.url.path.startswith("/static/"):
                    headers["Cache-Control"] = "max-age=31536000, immutable"
            await send(message)

        if "transfer-encoding" in request.headers:
            answer = JSONResponse({"detail": "say how long it is: Content-Length"}, 411)
            await answer(scope, receive, send_with_headers)
        elif not _is_short(request.headers.get("content-length", "0")):
            answer = JSONResponse({"detail": "that is too long"}, 413)
            await answer(scope, receive, send_with_headers)
        else:
            await self._app(scope, receive, send_with_headers)


def _is_short(length: str) -> bool:
    return length.isascii() and length.isdigit() and int(length[:20]) <= MOST_SENT


def _answer(request: Request, code: int, message: str, headers: Any = None) -> Response:
    if is_program(request):
        return JSONResponse({"detail": message}, code, headers)
    if code == 401:
        wanted = quote(request.url.path, safe="/")
        return RedirectResponse(f"/login?next={wanted}", 303)
    return page(request, "error.html", code, headers, message=message)


async def _adsmig_error(request: Request, exc: Exception) -> Response:
    code = 409 if isinstance(exc, Refused) else 422 if isinstance(exc, UsageError) else 400
    return _answer(request, code, str(exc))


async def _http_error(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    return _answer(request, exc.status_code, str(exc.detail), exc.headers)


async def _invalid(request: Request, exc: Exception) -> Response:
    """What is wrong with each field, without what was sent, which may be a secret."""
    assert isinstance(exc, RequestValidationError)
    wrong = [{"loc": one["loc"], "msg": one["msg"], "type": one["type"]} for one in exc.errors()]
    if is_program(request):
        return JSONResponse({"detail": wrong}, 422)
    return _answer(request, 422, "; ".join(f"{one['loc'][-1]}: {one['msg']}" for one in wrong))
