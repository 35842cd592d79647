"""Scripts and styles are addressed by their content and kept by the browser for as long as it stays the same."""

import re

import httpx
import pytest

from functions.frontend.app import HERE
from functions.frontend.static_files import CONTENT_TYPES, StaticFiles
from tests.frontend.loopback import serve_frontend
from tests.unused_ports import unused_address

FILES = sorted(path.name for path in (HERE / "static").iterdir())


@pytest.fixture(scope="module")
def pages() -> str:
    """The HTML of all of them."""
    locked = {"session_secrets": ("s" * 32,), "page_password": "nevermore-nevermore"}
    with serve_frontend(unused_address()) as url, serve_frontend(unused_address(), **locked) as behind:
        return "".join(httpx.get(page, timeout=30, trust_env=False).text for page in (url, f"{url}/status", behind))


def _addresses(pages: str) -> dict[str, str]:
    found = re.findall(r'"(/static/[^"]+)"', pages)
    return {address.rsplit("/", 1)[1]: address for address in found}


def test_the_pages_name_every_file_there_is(pages):
    """No file is there in vain, and every module is announced before another one asks for it."""
    assert sorted(_addresses(pages)) == FILES


def test_a_page_announces_only_the_modules_that_it_needs(client):
    """Those that its first one imports, and those that these import."""
    announced = re.findall(r'modulepreload" href="/static/[^/]+/([^"]+)"', client.get("/status").text)
    assert announced == [
        "api.js",
        "drawing.js",
        "samples.js",
        "session.js",
        "sse.js",
        "storage.js",
        "theme.js",
        "units.js",
        "words.js",
    ]
    assert "samples.js" not in client.get("/").text


@pytest.mark.parametrize("name", FILES)
def test_a_file_comes_as_what_it_is_and_may_be_kept(client, pages, name):
    """Its bytes, its type, a year's cache, and 304 for whoever has it."""
    address = _addresses(pages)[name]
    response = client.get(address)
    assert response.content == (HERE / "static" / name).read_bytes()
    assert response.headers["content-type"] == CONTENT_TYPES[f".{name.rsplit('.', 1)[1]}"]
    assert response.headers["cache-control"] == "public, max-age=31536000, immutable"
    known = client.get(address, headers={"if-none-match": f'"other", W/{response.headers["etag"]}'})
    assert (known.status_code, known.content) == (304, b"")
    assert client.head(address).headers["content-length"] == str(len(response.content))


def test_another_releases_address_is_answered_but_not_kept(client):
    """A page that was open during a deployment goes on working, and asks again."""
    response = client.get("/static/0123456789abcdef/main.js")
    assert response.status_code == 200
    assert response.headers["cache-control"] == "no-cache"


def test_every_change_changes_the_address(tmp_path):
    """The digest depends on names and contents, and on nothing else."""
    (tmp_path / "a.js").write_text("1")
    (tmp_path / "b.css").write_text("2")
    first = StaticFiles(tmp_path).digest
    assert StaticFiles(tmp_path).digest == first
    (tmp_path / "b.css").write_text("3")
    second = StaticFiles(tmp_path).digest
    (tmp_path / "b.css").rename(tmp_path / "c.css")
    assert len({first, second, StaticFiles(tmp_path).digest}) == 3


def test_a_file_that_the_page_asks_for_but_is_not_there_stops_the_start(tmp_path):
    """A mistyped name in the template is found when the page is rendered first, and named."""
    with pytest.raises(KeyError, match=r"mian\.js"):
        StaticFiles(tmp_path).url("mian.js")


def test_nothing_outside_the_site_is_named_by_what_the_browser_loads():
    """No script, style or template has an address with a host in it, but for names of XML and words of a comment."""
    for path in [*(HERE / "static").iterdir(), *(HERE / "templates").iterdir()]:
        text = re.sub(r'(xmlns=|SVG = )"[^"]*"|^\s*//.*$', "", path.read_text("utf-8"), flags=re.MULTILINE)
        assert not re.search(r"https?:|[\"'(]//|@import|url\(", text), path.name
