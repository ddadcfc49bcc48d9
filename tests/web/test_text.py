"""Every message is there in every language."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po

import adsmig.web
from tests.web.conftest import Client, ClientFactory

PACKAGE = Path(adsmig.web.__file__).parent
KEYWORDS = {"_": None, "gettext": None, "marked": None, "ngettext": (1, 2)}


def messages() -> set[str | tuple[str, ...]]:
    methods = [("**/templates/**.html", "jinja2"), ("**.py", "python")]
    options = {"**/templates/**.html": {"extensions": "jinja2.ext.i18n", "silent": "false"}}
    found = extract_from_dir(PACKAGE, methods, options, keywords=KEYWORDS)
    return {message for _, _, message, _, _ in found}


def test_no_message_is_untranslated_and_none_is_left_over() -> None:
    with resources.files("adsmig.web").joinpath("locale/zh/adsmig.po").open("rb") as file:
        translated = {one.id: one for one in read_po(file, "zh") if one.id}
    assert messages() - translated.keys() == set()
    assert translated.keys() - messages() == set()
    assert len(translated) > 150
    for source, message in translated.items():
        assert message.string, source
        assert not message.fuzzy, source
        one = source[-1] if isinstance(source, tuple) else source
        said = message.string[0] if isinstance(message.string, tuple) else message.string
        assert set(re.findall(r"%\(\w+\)s", one)) == set(re.findall(r"%\(\w+\)s", said)), source


def test_a_language_is_chosen_kept_or_the_browser_s(client_of: ClientFactory) -> None:
    client = client_of()
    assert "Log in" in client.get("/login").text
    browser = {"Accept-Language": "fr, zh-CN;q=0.9, en;q=0.8"}
    assert '<html lang="zh"' in client.get("/login", headers=browser).text
    assert "登录" in client.get("/login", headers=browser).text
    client.post("/appearance", data={"language": "zh"})
    assert "登录" in client.get("/login").text
    client.post("/appearance", data={"language": "tlh"})
    assert "登录" in client.get("/login").text
    assert "登录" in client_of(language="zh").get("/login").text


def test_pages_in_chinese_are_whole(client: Client) -> None:
    client.post("/appearance", data={"language": "zh", "theme": "dark"})
    for path, word in (("/jobs", "还没有作业"), ("/new", "等效命令行")):
        page = client.get(path).text
        assert word in page
        assert 'data-theme="dark"' in page
