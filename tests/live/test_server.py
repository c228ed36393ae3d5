"""The server: what it serves, what it refuses, and that nobody who reads it can hold up who writes."""

import http.client
import json
import socket
import statistics
import threading
import time

import pytest
from patience import wait_until

from jaxrl_engine.core.errors import UserError
from jaxrl_engine.live.mailbox import Mailbox
from jaxrl_engine.live.server import LONGEST_TARGET, WallServer, is_loopback, serve

PORT = 18_400


class Box:
    """A source whose messages the test writes."""

    def __init__(self):
        self.mailbox = Mailbox()
        self.chosen = "nobody asked"

    def stream(self, wishes):
        return self.mailbox.stream()

    def select(self, cell):
        self.chosen = cell


@pytest.fixture
def source():
    return Box()


@pytest.fixture
def server(source):
    server = WallServer(source, "127.0.0.1", PORT)
    yield server
    source.mailbox.close(patience=0.0)
    server.close()


def ask(server, target="/", method="GET", **headers):
    """Return status, headers and body of one request, written by hand so that nothing corrects it."""
    headers = {"Host": f"localhost:{server.server_port}"} | {name.replace("_", "-"): v for name, v in headers.items()}
    request = f"{method} {target} HTTP/1.1\r\n" + "".join(f"{name}: {v}\r\n" for name, v in headers.items()) + "\r\n"
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=10) as connection:
        connection.sendall(request.encode())
        response = http.client.HTTPResponse(connection, method=method)
        response.begin()
        return response.status, dict(response.getheaders()), response.read()


def listen(server):
    """Open a stream and return its connection, the head of the answer already read."""
    connection = socket.create_connection(("127.0.0.1", server.server_port), timeout=10)
    connection.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    head = b""
    while b"\r\n\r\n" not in head:
        head += connection.recv(1)
    assert b" 200 " in head and b"text/event-stream" in head
    return connection


# --- what is served ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "kind", "beginning"),
    [
        ("/", "text/html", b"<!doctype html>"),
        ("/wall.js", "text/javascript", b""),
        ("/wall.css", "text/css", b""),
        ("/favicon.svg", "image/svg+xml", b"<svg"),
    ],
)
def test_the_page_and_its_parts(server, target, kind, beginning):
    status, headers, body = ask(server, target)
    assert status == 200
    assert headers["Content-Type"].startswith(kind)
    assert body.lower().startswith(beginning) and len(body) == int(headers["Content-Length"]) > 0


def test_the_page_is_small_and_names_no_other_host(server):
    bodies = [body for body, _ in {id(entry): entry for entry in server.files.values()}.values()]
    assert sum(map(len, bodies)) < 60_000
    for body in bodies:
        for word in (b"http://", b"https://", b"//cdn", b"@import"):
            assert word not in body.replace(b"http://www.w3.org/2000/svg", b"")


def test_events_arrive_as_server_sent_events(server, source):
    source.mailbox.put("head", lambda: {"text": "</script>\n"})
    with listen(server) as connection:
        data = connection.recv(4096)
    assert data == b'event: head\ndata: {"text":"</script>\\n"}\n\n'


def test_a_cell_can_be_chosen_and_let_go(server, source):
    assert ask(server, "/select?cell=37")[0] == 204
    assert source.chosen == 37
    assert ask(server, "/select")[0] == 204
    assert source.chosen is None


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["/", "/events", "/select?cell=1", "/favicon.svg"])
@pytest.mark.parametrize(
    "host", ["example.org", "localhost.example.org", "127.0.0.1.example.org:80", "", "[", "192.168.0.7"]
)
def test_a_foreign_host_is_refused(server, source, target, host):
    assert ask(server, target, Host=host)[0] == 403
    assert source.chosen == "nobody asked"


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9000", "127.0.0.1:1", "[::1]:80"])
def test_a_tunnel_may_end_at_any_port(server, host):
    assert ask(server, "/", Host=host)[0] == 200


@pytest.mark.parametrize(
    "target",
    [
        "/../wall.css",
        "/..%2fwall.css",
        "/static/wall.css",
        "//etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/wall.js/",
        "/x",
    ],
)
def test_there_is_nothing_else(server, target):
    assert ask(server, target)[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "NONSENSE"])
def test_only_get_is_allowed(server, method):
    status, _headers, body = ask(server, "/", method)
    assert status == 405
    assert body == b"405 Method Not Allowed\n"


def test_requests_that_are_too_large_are_refused(server):
    assert ask(server, "/" + "a" * LONGEST_TARGET)[0] == 414
    assert ask(server, "/", Content_Length="1000000000")[0] == 413
    assert ask(server, "/", Transfer_Encoding="chunked")[0] == 413
    assert ask(server, "/", **{f"X-{number}": "a" for number in range(200)})[0] == 431
    assert ask(server, "/", X="a" * 70_000)[0] == 431


@pytest.mark.parametrize("cell", ["-1", "x", "1e3", "9" * 30, "²"])
def test_a_cell_that_is_no_number_is_refused(server, source, cell):
    assert ask(server, f"/select?cell={cell.encode().decode('latin-1')}")[0] == 400
    assert source.chosen == "nobody asked"


def test_pages_of_other_sites_may_link_here_but_not_ask(server, source):
    assert ask(server, "/select?cell=1", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="no-cors")[0] == 403
    assert ask(server, "/events", Sec_Fetch_Site="same-site", Sec_Fetch_Mode="cors")[0] == 403
    assert source.chosen == "nobody asked"
    assert ask(server, "/", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate")[0] == 200
    assert ask(server, "/select?cell=1", Sec_Fetch_Site="same-origin", Sec_Fetch_Mode="cors")[0] == 204


@pytest.mark.parametrize("target", ["/", "/wall.js", "/nothing"])
def test_every_answer_carries_the_policy_and_no_version(server, target):
    _, headers, _ = ask(server, target)
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "*" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "Python" not in headers["Server"]


def test_beyond_this_machine_the_run_is_shown_for_the_token_alone(source):
    server = WallServer(source, "0.0.0.0", PORT)
    try:
        assert f"token={server.token}" in server.address and len(server.token) >= 20
        for target in ("/", "/index.html", "/events", "/select?cell=3"):
            assert ask(server, target)[0] == 403
            assert ask(server, f"{target}{'&' if '?' in target else '?'}token=wrong")[0] == 403
        assert source.chosen == "nobody asked"
        assert ask(server, "/wall.js")[0] == 200  # the same for every run
        assert ask(server, f"/select?cell=3&token={server.token}", Host="the-server.example.org")[0] == 204
        assert source.chosen == 3
    finally:
        server.close()
    again = WallServer(source, "0.0.0.0", PORT)
    again.close()
    assert again.token != server.token


def test_loopback_addresses():
    assert all(map(is_loopback, ("localhost", "127.0.0.1", "127.3.5.7", "::1")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.0.7", "example.org", "")))


# --- ports ------------------------------------------------------------------------------------------------------------


def test_a_taken_port_leads_to_the_next_and_is_told(server, source):
    other, lines = serve(source, "127.0.0.1", server.server_port)
    try:
        assert other.server_port == server.server_port + 1
        assert lines[0] == f"wall: http://localhost:{other.server_port}/"
        assert lines[1] == f"port {server.server_port} is taken; the wall is on {other.server_port}"
        assert f"ssh -L {other.server_port}:localhost:{other.server_port} " in lines[2]
    finally:
        other.close()


def test_an_address_of_another_machine_is_a_mistake(source):
    for host in ("192.0.2.1", "no-such-host.invalid"):
        with pytest.raises(UserError, match="live_host must be an address of this machine"):
            WallServer(source, host, PORT)


# --- readers that go wrong --------------------------------------------------------------------------------------------


def test_twenty_stalled_readers_hold_nobody_up(server, source):
    """Each is sent more than its buffers hold and reads nothing; meanwhile the writer writes and another reads."""
    stalled = [listen(server) for _ in range(20)]
    wait_until(lambda: source.mailbox.readers == 20)
    text, seconds = "x" * 300_000, []
    for number in range(60):
        begun = time.perf_counter()
        source.mailbox.put("screens", lambda number=number: {"n": number, "text": text})
        seconds.append(time.perf_counter() - begun)
        time.sleep(0.005)
    assert statistics.quantiles(seconds, n=100)[98] < 0.1  # a stalled reader would hold it up for seconds
    with listen(server) as connection:
        data = b""
        while b"\n\n" not in data:
            data += connection.recv(65536)
    assert json.loads(data.split(b"data: ")[1])["n"] == 59
    begun = time.perf_counter()
    server.close()
    assert time.perf_counter() - begun < 5.0
    for connection in stalled:
        connection.close()


def test_a_reader_that_vanishes_in_the_middle_of_a_message_is_forgotten(server, source):
    connection = listen(server)
    wait_until(lambda: source.mailbox.readers == 1)
    stop = threading.Event()

    def write():
        while not stop.is_set():
            source.mailbox.put("screens", lambda: {"text": "x" * 300_000})
            time.sleep(0.01)

    thread = threading.Thread(target=write)
    thread.start()
    connection.recv(1000)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset, not an orderly end
    connection.close()
    wait_until(lambda: source.mailbox.readers == 0)
    stop.set()
    thread.join()
    assert ask(server)[0] == 200
