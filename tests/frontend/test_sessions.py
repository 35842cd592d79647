"""The page gives its readers sessions, and keeps the door where there is a password."""

import asyncio
import json
import time
from collections.abc import Iterator
from http.cookies import SimpleCookie

import httpx
import pytest

from functions.frontend.entrance import COOKIE, LATE_S, Entrance
from functions.frontend.errors import RefusedError
from functions.frontend.form import DEFAULTS
from functions.frontend.password import MOST_WAITING, Password
from functions.frontend.session import LIFETIME_S, LONGEST_S, Session, SessionSeal
from tests.frontend.fake_backend import FakeBackend, Script, as_error, run_fake_backend
from tests.frontend.loopback import serve_frontend
from tests.frontend.test_pages import Reader

SECRET = "a secret of at least 32 characters, this one"
SEAL = SessionSeal([SECRET])
PASSWORD = "nevermore-nevermore"
LOCKED = SessionSeal([SECRET], PASSWORD)


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[FakeBackend, str, str]]:
    """A backend, a page that is open to everybody, and one with a password."""
    settings = {"session_secrets": (SECRET,)}
    with (
        run_fake_backend() as backend,
        serve_frontend(backend.url, **settings) as page,
        serve_frontend(backend.url, **settings, page_password=PASSWORD) as locked,
    ):
        yield backend, page, locked


@pytest.fixture
def backend(servers) -> Iterator[FakeBackend]:
    """Nobody has asked it anything; it forgets what this test has it say."""
    servers[0].requests.clear()
    said = dict(servers[0].scripts)
    yield servers[0]
    servers[0].scripts = said


@pytest.fixture
def page(servers) -> Iterator[httpx.Client]:
    """A reader at the open page."""
    with httpx.Client(base_url=servers[1], timeout=30, trust_env=False) as client:
        yield client


@pytest.fixture
def locked(servers) -> Iterator[httpx.Client]:
    """A reader at the page with a password."""
    with httpx.Client(base_url=servers[2], timeout=30, trust_env=False) as client:
        yield client


def _cookie(response: httpx.Response) -> SimpleCookie:
    """What the response has the browser keep."""
    return SimpleCookie(response.headers.get("set-cookie", ""))


def _session(response: httpx.Response, seal: SessionSeal = SEAL) -> Session:
    session = seal.read(_cookie(response)[COOKIE].value, time.time())
    assert session is not None
    return session


def _with(session: Session, seal: SessionSeal = SEAL) -> dict[str, str]:
    return {"cookie": f"{COOKIE}={seal.write(session)}"}


def _old(seconds: float) -> Session:
    """A session that was begun so long ago."""
    return Session.begin(time.time() - seconds)


def test_whoever_loads_the_page_has_a_session(page):
    """In a cookie that no script reads, no other site's form sends, no cache keeps; the same while it is good."""
    for path in ("/", "/status"):
        response = page.get(path)
        kept = _cookie(response)[COOKIE]
        assert kept["httponly"] is True
        assert (kept["samesite"], kept["path"], kept["secure"]) == ("lax", "/", "")
        assert int(kept["max-age"]) == LIFETIME_S
        assert response.headers["cache-control"] == "private, no-cache"
        page.cookies.clear()
    session = Session.begin(time.time())
    assert "set-cookie" not in page.get("/", headers=_with(session)).headers


@pytest.mark.parametrize("proto", ["https", "https, http", "HTTPS"])
def test_by_https_the_cookie_is_for_https_alone(page, proto):
    """As a proxy in front says."""
    assert _cookie(page.get("/", headers={"x-forwarded-proto": proto}))[COOKIE]["secure"] is True


def test_a_session_that_is_half_over_is_renewed(page):
    """By the page and by its scripts: the same reader, for longer. What is over is somebody new."""
    session, began = _old(LIFETIME_S / 2 + 10), int(time.time())
    for response in (page.get("/", headers=_with(session)), page.post("/session", headers=_with(session))):
        assert response.status_code == 200
        renewed = _session(response)
        assert renewed.sid == session.sid
        assert renewed.exp >= began + LIFETIME_S
        page.cookies.clear()
    assert page.post("/session").json() == {"expires_in_s": LIFETIME_S}
    assert _session(page.get("/", headers=_with(_old(LIFETIME_S + 1)))).sid != session.sid


def test_the_form_asks_in_the_readers_name(backend, page):
    """Without scripts, too: with the session that the browser has, else with a new one, which it then keeps."""
    session = Session.begin(time.time())
    page.post("/", data={**DEFAULTS, "prompt": "a"}, headers=_with(session))
    assert backend.last.headers["cookie"] == f"{COOKIE}={SEAL.write(session)}"
    response = page.post("/", data={**DEFAULTS, "prompt": "a"})
    assert backend.last.headers["cookie"] == f"{COOKIE}={_cookie(response)[COOKIE].value}"


@pytest.mark.parametrize(
    ("language", "after", "words"),
    [
        ("en", "42", "You have used up what one reader may use for now. Try again in 42 s."),
        ("en", "4000", "You have used up what one reader may use for now. Try again in 1 h 7 min."),
        ("fr", "120", "Vous avez épuisé ce qu’un lecteur peut utiliser pour le moment. Réessayez dans 2 min."),
        ("en", "soon", "You have used up what one reader may use for now."),
    ],
)
def test_a_quota_that_is_used_up_says_when_to_try_again(backend, page, language, after, words):
    """In the form's answer."""
    script = as_error(429, "quota_exceeded", "Enough.", retryable=True)
    backend.scripts["/api/llm/generate"] = Script(429, {**script.headers, "retry-after": after}, script.chunks)
    response = page.post("/", params={"lang": language}, data={**DEFAULTS, "prompt": "a"})
    assert response.status_code == 429
    assert Reader(response.text).texts["alert-words"] == words


@pytest.mark.parametrize("path", ["/", "/status"])
def test_a_locked_page_asks_for_the_password_first(backend, locked, path):
    """Nothing of the page, no session, and nothing asked of the API."""
    response = locked.get(path)
    reader = Reader(response.text)
    assert response.status_code == 200
    assert reader.attributes["password"]["autocomplete"] == "current-password"
    assert reader.values["place"] == path
    assert "prompt" not in reader.attributes
    assert "set-cookie" not in response.headers
    assert response.headers["cache-control"] == "no-store"
    assert backend.requests == []


def test_the_password_opens_the_page(locked):
    """As a form: on to where the reader wanted to go, in the same language."""
    fields = {"password": PASSWORD, "place": "/status"}
    response = locked.post("/session", params={"lang": "fr"}, data=fields)
    assert (response.status_code, response.headers["location"]) == (303, "/status?lang=fr")
    assert int(_cookie(response)[COOKIE]["max-age"]) == LIFETIME_S + LATE_S
    assert "tiles" in Reader(locked.get("/status").text).attributes


@pytest.mark.parametrize("place", ["//evil.example", "https://evil.example", "/nowhere", ""])
def test_the_password_leads_nowhere_else(locked, place):
    """Whoever makes somebody else send the form does not choose where it ends."""
    response = locked.post("/session", params={"lang": "a&b"}, data={"password": PASSWORD, "place": place})
    assert response.headers["location"] == "/"


def test_a_wrong_password_opens_nothing(locked):
    """It is said in words, as a page and as JSON, and nothing of it is shown."""
    response = locked.post(
        "/session", params={"lang": "fr"}, data={"password": "Nevermore-nevermore", "place": "/status"}
    )
    reader = Reader(response.text)
    assert response.status_code == 401
    assert reader.texts["alert-words"] == "Ce n’est pas le mot de passe."
    assert reader.values["place"] == "/status"
    assert "Nevermore-nevermore" not in response.text
    assert "set-cookie" not in response.headers
    as_json = locked.post("/session", data={"password": ""}, headers={"accept": "application/json"})
    assert (as_json.status_code, as_json.json()["error"]["code"]) == (401, "wrong_password")


@pytest.mark.parametrize("body", [b"password=%ff", b"a=1&b=2&c=3&d=4&e=5", "password=é".encode()])
def test_an_odd_form_opens_nothing(locked, body):
    """Nor does it break anything."""
    response = locked.post("/session", content=body, headers={"content-type": "application/x-www-form-urlencoded"})
    assert response.status_code == 400
    assert "set-cookie" not in response.headers


def test_without_the_password_there_is_no_session_to_renew(backend, locked):
    """The scripts are told; what was typed into the form is not lost."""
    response = locked.post("/session", headers={"accept": "application/json"})
    assert (response.status_code, response.json()["error"]["code"]) == (401, "password_required")
    answer = locked.post("/", data={**DEFAULTS, "prompt": "ROMEO:"})
    assert answer.status_code == 401
    assert Reader(answer.text).texts["prompt"].strip() == "ROMEO:"
    assert backend.requests == []


def test_a_nap_does_not_cost_the_password(locked):
    """For half a day a session that is over can be made into a new one; the API does not take it before."""
    session = _old(LIFETIME_S + LATE_S - 60)
    assert _session(locked.get("/", headers=_with(session, LOCKED)), LOCKED).sid == session.sid
    assert locked.post("/session", headers=_with(_old(LIFETIME_S + LATE_S + 1), LOCKED)).status_code == 401


def test_a_day_after_the_password_it_is_asked_for_again(locked):
    """Also of a session that was renewed all the time; and a session of an open page opens no locked one."""
    now = int(time.time())
    for session, seal in ((Session("a" * 22, now, now + 60, now - LONGEST_S), LOCKED), (_old(0), SEAL)):
        assert locked.post("/session", headers=_with(session, seal)).status_code == 401


def test_another_sites_page_begins_no_session(page, locked):
    """Neither a form nor a script."""
    for client in (page, locked):
        for sent in ({"data": {"password": PASSWORD}}, {}):
            response = client.post("/session", headers={"sec-fetch-site": "cross-site"}, **sent)
            assert response.status_code == 403
            assert "set-cookie" not in response.headers


def test_without_secrets_there_are_no_sessions(client):
    """Nothing to renew, no cookie, and the scripts are told nothing of one."""
    response = client.get("/")
    assert "set-cookie" not in response.headers
    assert "data-session-s" not in response.text
    assert client.post("/session").status_code == 404


def test_nobody_guesses_fast():
    """One guess at a time: after a wrong one even the right one waits; too many that wait are sent away."""

    async def guess() -> None:
        password = Password(PASSWORD, pause_s=0.05)
        began = time.monotonic()
        wrong = [asyncio.create_task(password.check(f"guess {n}")) for n in range(3)]
        await asyncio.sleep(0)
        await password.check(PASSWORD)
        assert time.monotonic() - began >= 3 * 0.05
        for refused in await asyncio.gather(*wrong, return_exceptions=True):
            assert isinstance(refused, RefusedError)
            assert refused.status == 401
        crowd = [asyncio.create_task(password.check("guess")) for _ in range(MOST_WAITING)]
        await asyncio.sleep(0)
        with pytest.raises(RefusedError) as refused:
            await password.check(PASSWORD)
        assert refused.value.status == 429
        assert refused.value.error.retry_after_s
        for task in crowd:
            task.cancel()
        await asyncio.gather(*crowd, return_exceptions=True)
        # Who was sent away or has left keeps nobody out.
        await password.check(PASSWORD)

    asyncio.run(guess())


def test_a_door_without_a_seal_is_open():
    """And passes no cookie on."""
    assert json.dumps(dict(Entrance(None, asks=False, always_secure=False).enter(None).headers)) == "{}"  # type: ignore[arg-type]
