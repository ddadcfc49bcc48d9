"""Who comes in, and who does not."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from adsmig.web import access
from adsmig.web.access import COOKIE, Access, key_file, write_password
from tests.web.conftest import Client, ClientFactory, make_job, make_manifest

PAGES = ("/", "/jobs", "/jobs/events", "/new", "/jobs/0123456789", "/jobs/0123456789/log")
PASSWORD = "correct horse"


@pytest.mark.parametrize("path", PAGES)
def test_pages_ask_strangers_to_log_in(client_of: ClientFactory, path: str) -> None:
    answer = client_of().get(path, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/login?next={path}")


@pytest.mark.parametrize("path", ["/api/jobs", "/api/jobs/0123456789", "/metrics"])
def test_programs_without_a_key_are_refused(client_of: ClientFactory, path: str) -> None:
    stranger = client_of()
    assert stranger.get(path).status_code == 401
    wrong = {"Authorization": "Bearer wrong"}
    assert stranger.get(path, headers=wrong).status_code == 401


def test_the_token_lets_in_once_it_is_right(client_of: ClientFactory) -> None:
    client = client_of()
    answer = client.get("/login", params={"token": "wrong"})
    assert answer.status_code == 401
    assert "This token is wrong." in answer.text
    assert client.get("/jobs", follow_redirects=False).status_code == 303
    answer = client.get("/login", params={"token": client.access.token}, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert client.get("/jobs").status_code == 200


def test_with_a_password_no_token_is_any_good(client_of: ClientFactory) -> None:
    path = write_password(PASSWORD)
    assert PASSWORD not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    client = client_of()
    assert client.get("/login", params={"token": client.access.token}).status_code == 401
    assert client.post("/login", data={"given": "wrong password"}).status_code == 401
    assert client.post("/login", data={"given": PASSWORD}).url.path == "/jobs"


def test_a_password_is_what_was_set_to_its_last_blank(client_of: ClientFactory) -> None:
    write_password(" with blanks ")
    client = client_of()
    for given, code in (("with blanks", 401), (" with blanks ", 303)):
        answer = client.post("/login", data={"given": given}, follow_redirects=False)
        assert answer.status_code == code


def test_guessing_is_stopped_before_it_gets_far(client_of: ClientFactory) -> None:
    client = client_of()
    codes = [client.post("/login", data={"given": f"{n}"}).status_code for n in range(8)]
    assert codes == [401] * access.MOST_WRONG + [429] * 3
    # Even the right one is not looked at any more, for now.
    answer = client.post("/login", data={"given": client.access.token})
    assert answer.status_code == 429
    assert 0 < int(answer.headers["retry-after"]) <= access.WINDOW_S


def test_one_who_guesses_shuts_out_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    door = Access()
    assert not any(door.log_in("wrong", "10.0.0.1") for _ in range(20))
    assert door.log_in(door.token, "10.0.0.2")
    for number in range(access.MOST_WRONG_ALL):
        door.log_in("wrong", f"10.0.1.{number}")
    assert door.waits("10.0.0.3")  # many who guess together
    monkeypatch.setattr(access, "WINDOW_S", 0.0)
    assert not door.waits("10.0.0.3")


def test_a_stolen_cookie_is_worth_nothing_after_logout(client: Client) -> None:
    stolen = client.cookies[COOKIE]
    headers = {"Cookie": f"{COOKIE}={stolen}"}
    assert client.get("/jobs", headers=headers, follow_redirects=False).status_code == 200
    client.submit("/logout")
    client.cookies.clear()
    assert client.get("/jobs", headers=headers, follow_redirects=False).status_code == 303
    assert client.get("/api/jobs", headers=headers).status_code == 401


def test_a_session_ends_when_it_is_old(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "IDLE_S", -1)
    assert client.get("/api/jobs").status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_what_another_site_sends_is_refused(client: Client, headers: dict[str, str]) -> None:
    job = make_job()
    make_manifest(job, state="stopped")
    for path in (f"/jobs/{job.id}/resume", "/new", "/logout", f"/api/jobs/{job.id}/resume"):
        answer = client.post(path, data={"csrf": client.csrf}, headers=headers)
        assert answer.status_code == 403, path
    assert client.post("/login", data={"given": "x"}, headers=headers).status_code == 403
    assert client.get("/jobs").status_code == 200


def test_a_form_without_the_session_s_word_is_refused(client: Client) -> None:
    for csrf in ("", "wrong"):
        assert client.post("/new", data={"csrf": csrf}).status_code == 403
    assert client.post("/api/jobs", json={}).status_code == 403
    wrong = {"X-CSRF-Token": "wrong"}
    assert client.post("/api/jobs", json={}, headers=wrong).status_code == 403


def test_a_program_comes_in_with_the_key_of_its_user(client_of: ClientFactory) -> None:
    client = client_of()
    assert stat.S_IMODE(key_file().stat().st_mode) == 0o600
    headers = {"Authorization": f"Bearer {key_file().read_text().strip()}"}
    assert client.get("/api/jobs", headers=headers).json() == []
    assert client.post("/api/jobs", json={}, headers=headers).status_code == 422
    assert client.get("/metrics", headers=headers).status_code == 200


def test_after_login_nobody_is_led_elsewhere(client_of: ClientFactory) -> None:
    client = client_of()
    for elsewhere in ("https://evil.example/", "//evil.example/", "/\\evil.example", "evil"):
        answer = client.get(
            "/login",
            params={"token": client.access.token, "next": elsewhere},
            follow_redirects=False,
        )
        assert answer.headers["location"] == "/"


def test_every_answer_has_strict_headers(client: Client) -> None:
    for path in ("/jobs", "/login", "/nowhere", "/api/jobs", "/static/console.css"):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
    assert client.get("/jobs").headers["cache-control"] == "no-store"


def test_what_is_too_long_is_not_read(client: Client) -> None:
    assert client.post("/new", content=b"x" * (2 << 20)).status_code == 413
    assert client.post("/new", content=iter([b"x"])).status_code == 411


def web(*options: str, said: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "adsmig", "web", *options]
    return subprocess.run(command, input=said, capture_output=True, text=True, timeout=120)


def test_it_does_not_listen_to_the_network_without_a_password() -> None:
    done = web("--listen", "0.0.0.0:0")
    assert done.returncode == 2
    assert "adsmig web --set-password" in done.stderr
    assert "TLS" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_password_is_set_and_too_short_a_one_is_not() -> None:
    assert web("--set-password", said="short\n").returncode == 2
    done = web("--set-password", said=f"{PASSWORD}\n")
    assert done.returncode == 0
    assert Access().log_in(PASSWORD, "")


def test_an_address_that_is_taken_is_told_in_one_line(tmp_path: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = web("--listen", f"127.0.0.1:{taken.getsockname()[1]}")
    assert done.returncode == 3
    assert "cannot listen" in done.stderr
    assert web("--listen", "nonsense").returncode == 2


def test_without_the_extra_it_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['uvicorn'] = None; import adsmig.program;"
        " sys.exit(adsmig.program.run(['web']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ
    )
    assert done.returncode == 3
    assert done.stderr == "adsmig: the console needs uvicorn: pip install 'adsmig[web]'\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_end_that_is_asked_for_is_no_failure(number: int) -> None:
    """As systemd takes any other exit code for one."""
    command = [sys.executable, "-m", "adsmig", "web", "--listen", "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        url = process.stdout.readline().split()[-1]
        urllib.request.urlopen(url, timeout=60).close()  # which waits until it serves
        process.send_signal(number)
        assert process.wait(60) == 0
