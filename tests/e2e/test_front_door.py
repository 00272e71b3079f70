"""At the front door, with real processes: pages that change, rules, prefixes, curl sent to https."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.e2e.stage import Origin, Stage, Turnout, shop, wait_until
from tests.e2e.wire import Wire
from tests.ports import free_port

SEEN_WITHIN_S = 20.0
BROWSER = "text/html,application/xhtml+xml,*/*;q=0.8"

needs_curl = pytest.mark.skipif(
    not (shutil.which("curl") and shutil.which("openssl")), reason="curl and openssl are not here"
)


@pytest.fixture(scope="module")
def blue(module_stage: Stage) -> Origin:
    return module_stage.origin("blue")


@pytest.fixture(scope="module")
def turnout(module_stage: Stage, blue: Origin, https: int) -> Turnout:
    """A listener that serves and one that redirects; `down` has nobody to answer."""
    plain, redirecting = free_port(), free_port()
    rules = {
        "request": {"set": {"Host": "inside.example"}, "remove": ["X-Debug"]},
        "response": {"set": {"X-Frame-Options": "DENY"}, "remove": ["Server"]},
    }
    down = shop(["127.0.0.1:1"], [], errors={"page": "pages"}, headers=rules)
    down["routes"] = [{"host": "down.example"}]
    turnout = module_stage.turnout(
        blue,
        [],
        start=False,
        routes=[{"path": "/app", "strip_prefix": True}],
        headers=rules,
        top={
            "listeners": [
                {"bind": f"127.0.0.1:{plain}"},
                {"bind": f"127.0.0.1:{redirecting}", "redirect": {"to": "https", "port": https}},
            ]
        },
    )
    (turnout.directory / "pages").mkdir()
    (turnout.directory / "pages/5xx.html").write_text("<p>{status} first {request_id}</p>")
    turnout.config["services"]["down"] = down
    turnout.write(turnout.config)
    turnout.start()
    return turnout


class _Echo(BaseHTTPRequestHandler):
    """Answers what it was asked, over TLS."""

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        said = f"{self.command} {self.path} {self.headers['Host']} ".encode() + body
        self.send_response(200)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    do_GET = do_POST = _answer  # noqa: N815 - the names are the library's

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's
        """Say nothing."""


@pytest.fixture(scope="module")
def https(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A port where somebody speaks https; without openssl nobody does."""
    if not shutil.which("openssl"):
        yield free_port()
        return
    folder = tmp_path_factory.mktemp("https")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
    command += " -subj /CN=localhost -keyout key.pem -out cert.pem"
    subprocess.run(command.split(), cwd=folder, check=True, capture_output=True, timeout=30)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    with ThreadingHTTPServer(("127.0.0.1", 0), _Echo) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, name="https")
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


async def page(turnout: Turnout, accept: str = BROWSER) -> bytes:
    async with await Wire.to(turnout.port) as wire:
        headers = {"Host": "down.example", "Accept": accept}
        answer = await wire.request("/", headers=headers)
    assert answer.status == 502
    assert answer.header("x-frame-options") == "DENY"
    return answer.body.replace((answer.header("x-request-id") or "").encode(), b"ID")


async def test_a_page_that_changes_on_disk_is_served_soon_by_every_worker(
    turnout: Turnout,
) -> None:
    assert await page(turnout) == b"<p>502 first ID</p>"
    pages = turnout.directory / "pages"
    (pages / "5xx.html").write_text("<p>second</p>")
    changed = time.monotonic()
    while await page(turnout) != b"<p>second</p>":
        assert time.monotonic() - changed < SEEN_WITHIN_S
    for _ in range(20):  # more connections than there are workers
        assert await page(turnout) == b"<p>second</p>"
    assert (await page(turnout, "application/json")).startswith(b"{")
    (pages / "502.html").write_text("<p>third</p>")  # a new file for that status alone
    changed = time.monotonic()
    while await page(turnout) != b"<p>third</p>":
        assert time.monotonic() - changed < SEEN_WITHIN_S
    whats = {each["why"] for each in turnout.get("/v1/decisions")}
    assert any("5xx.html changed" in why for why in whats)


async def test_a_page_that_cannot_be_used_leaves_the_last_good_one(turnout: Turnout) -> None:
    good = await page(turnout)
    slip = turnout.directory / "pages/52.html"
    slip.write_text("a slip of the pen")
    try:
        wait_until(lambda: turnout.get("/v1/status")["config"]["last_error"], "it is seen")
        assert "52.html" in str(turnout.get("/v1/status")["config"]["last_error"])
        assert await page(turnout) == good
    finally:
        slip.unlink()
    wait_until(lambda: not turnout.get("/v1/status")["config"]["last_error"], "it is mended")


async def test_rules_and_prefix_hold_through_real_processes(turnout: Turnout) -> None:
    async with await Wire.to(turnout.port) as wire:
        answer = await wire.request("/app/headers?a", headers={"X-Debug": "1"})
    asked = answer.json()
    names = {name.lower(): value for name, value in asked["headers"]}
    assert asked["line"] == "GET /headers?a"
    assert names["host"] == "inside.example"
    assert names["x-forwarded-host"] == "shop.example.com"
    assert names["x-forwarded-prefix"] == "/app"
    assert "x-debug" not in names
    assert answer.all("x-frame-options") == ["DENY"]


@needs_curl
@pytest.mark.parametrize("options", [[], ["--data-binary", "hello", "-H", "Expect: 100-continue"]])
def test_curl_is_sent_to_https_with_all_it_has(
    turnout: Turnout, https: int, options: list[str]
) -> None:
    redirecting = turnout.config["listeners"][1]["bind"].rpartition(":")[2]
    url = f"http://localhost:{redirecting}/a%20b?c=d&e"
    command = ["curl", "-sSkL", "--max-time", "20", "-w", " %{num_redirects}", *options, url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    method, body = ("POST", "hello") if options else ("GET", "")
    assert done.stdout == f"{method} /a%20b?c=d&e localhost:{https} {body} 1"


async def test_the_redirection_keeps_the_connection(turnout: Turnout, https: int) -> None:
    port = int(turnout.config["listeners"][1]["bind"].rpartition(":")[2])
    async with await Wire.to(port) as wire:
        for target in ("/app/who", "/"):
            answer = await wire.request(target)
            assert answer.status == 308
            assert answer.header("location") == f"https://shop.example.com:{https}{target}"
