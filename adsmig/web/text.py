"""The languages of the console: gettext catalogues, and one language for each request."""

from __future__ import annotations

import gettext as _gettext
import io
from contextvars import ContextVar
from functools import lru_cache
from importlib import resources

from starlette.requests import HTTPConnection

LANGUAGES = {"en": "English", "zh": "中文"}
language: ContextVar[str] = ContextVar("language", default="en")
"""That of the request being answered."""


def gettext(message: str) -> str:
    """The message in the language of the request."""
    return catalogue(language.get()).gettext(message)


def marked(message: str) -> str:
    """The message as it is; marks it as one that is translated where it is shown."""
    return message


def ngettext(one: str, many: str, count: int) -> str:
    """The message for so many, in the language of the request."""
    return catalogue(language.get()).ngettext(one, many, count)


def preferred(request: HTTPConnection, fallback: str) -> str:
    """The language of a request: chosen before, else ``fallback``, else what the browser says."""
    chosen = request.cookies.get("language", "") or fallback
    if chosen in LANGUAGES:
        return chosen
    for part in request.headers.get("accept-language", "").split(","):
        name = part.partition(";")[0].strip().lower().partition("-")[0]
        if name in LANGUAGES:
            return name
    return "en"


@lru_cache
def catalogue(name: str) -> _gettext.NullTranslations:
    """The messages of a language; English ones are their own translations."""
    if name == "en":
        return _gettext.NullTranslations()
    from babel.messages.mofile import write_mo
    from babel.messages.pofile import read_po

    source = resources.files("adsmig.web").joinpath(f"locale/{name}/adsmig.po")
    with source.open("rb") as file:
        messages = read_po(file, name)
    compiled = io.BytesIO()
    write_mo(compiled, messages)
    compiled.seek(0)
    return _gettext.GNUTranslations(compiled)
