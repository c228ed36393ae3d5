"""The wall's web server: one page, one stream of events, and nothing else; from the standard library.

On loopback the name in the `Host` header must be a loopback name, so that no page of another site can reach it through
a name of its own (DNS rebinding). Elsewhere whoever wants to see the run must have the token of the printed address.
"""

import contextlib
import getpass
import importlib.resources
import ipaddress
import secrets
import socket
import threading
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol, runtime_checkable
from urllib.parse import parse_qsl, urlsplit

from jaxrl_engine.core.errors import UserError
from jaxrl_engine.live.mailbox import News

PORTS_TRIED = 20
MOST_STREAMS = 64
PATIENCE_SECONDS = 10.0
"""For a request to arrive, and for a reader to take a message."""
LONGEST_TARGET = 1024
PING = b": ping\n\n"
LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
KINDS = {
    ".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}  # fmt: skip
PUBLIC = (".js", ".css", ".svg")
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@runtime_checkable
class Source(Protocol):
    """Where the events come from: a run, a recording."""

    def stream(self, wishes: Mapping[str, str]) -> Iterator[News]:
        """Yield what is new; `wishes` are the query of the request."""

    def select(self, cell: int | None) -> None:
        """Show the body of a cell of the repertoire (None: no particular one)."""


class WallServer(ThreadingHTTPServer):
    """Serves until `close`, each connection in a thread of its own that dies with the process.

    Raises:
        UserError: the host is no address of this machine, or no port near the asked one is free.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, source: Source, host: str, port: int) -> None:
        self.source = source
        self.local = is_loopback(host)
        self.token = "" if self.local else secrets.token_urlsafe(16)
        self.files = _load_files()
        self.streams = threading.BoundedSemaphore(MOST_STREAMS)
        if ":" in host:
            self.address_family = socket.AF_INET6
        _bind(self, host, port)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.1,), name="wall-server", daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        """What to type into a browser on this machine."""
        host = self.server_name
        shown = "localhost" if self.local else f"[{host}]" if ":" in host else host
        return f"http://{shown}:{self.server_port}/" + (f"?token={self.token}" if self.token else "")

    def close(self) -> None:
        """Accept nothing any more; returns at once, whatever readers do."""
        self.shutdown()
        self.socket.close()
        self._thread.join(timeout=PATIENCE_SECONDS)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a browser that goes away in the middle of a message is no error."""

    def server_bind(self) -> None:
        """Bind without asking the name service who we are, which may take seconds.

        The port of a run that has just ended can be had at once; one that is listened on cannot.
        """
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]


class _Handler(BaseHTTPRequestHandler):
    server: WallServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "wall", ""
    timeout = PATIENCE_SECONDS

    def do_GET(self) -> None:
        self.close_connection = True
        target = urlsplit(self.path)
        wishes = dict(parse_qsl(target.query))
        if not self._admitted(target.path, wishes):
            return
        if target.path == "/events":
            self._stream(wishes)
        elif target.path == "/select":
            self._select(wishes)
        elif target.path in self.server.files:
            self._answer(HTTPStatus.OK, *self.server.files[target.path])
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def _admitted(self, path: str, wishes: Mapping[str, str]) -> bool:
        """Refuse what is too large, comes from another site, or lacks the token.

        The page's script, style and icon are the same everywhere, and are asked for without it.
        """
        known = path.endswith(PUBLIC) or secrets.compare_digest(wishes.get("token", ""), self.server.token)
        length = self.headers.get("Content-Length", "0")
        if len(self.path) > LONGEST_TARGET:
            self.send_error(HTTPStatus.REQUEST_URI_TOO_LONG)
        elif length != "0" or self.headers.get("Transfer-Encoding"):
            self.send_error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        elif not self._from_here() or not known:
            self.send_error(HTTPStatus.FORBIDDEN)
        else:
            return True
        return False

    def _from_here(self) -> bool:
        """Whether the browser asks for itself, not for a page of another site."""
        other_site = self.headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none")
        navigates = self.headers.get("Sec-Fetch-Mode") == "navigate"
        if self.server.local and _host_name(self.headers.get("Host", "")) not in LOCAL_NAMES:
            return False
        return navigates or not other_site

    def _stream(self, wishes: Mapping[str, str]) -> None:
        if not self.server.streams.acquire(blocking=False):
            self.send_error(HTTPStatus.SERVICE_UNAVAILABLE)
            return
        try:
            self._head(HTTPStatus.OK, "text/event-stream", None)
            with contextlib.closing(self.server.source.stream(wishes)) as events:  # type: ignore[type-var]
                for news in events:
                    self.wfile.write(b"".join(_event(*each) for each in news) or PING)
        except OSError:
            pass  # gone, or too slow: a reader that still wants to know connects again
        finally:
            self.server.streams.release()

    def _select(self, wishes: Mapping[str, str]) -> None:
        cell = wishes.get("cell")
        if cell is not None and not (cell.isascii() and cell.isdecimal() and len(cell) < 10):
            self.send_error(HTTPStatus.BAD_REQUEST)
            return
        self.server.source.select(None if cell is None else int(cell))
        self._answer(HTTPStatus.NO_CONTENT, b"", "text/plain")

    def _answer(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self._head(status, kind, len(body))
        self.wfile.write(body)

    def _head(self, status: HTTPStatus, kind: str, length: int | None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.send_header("Connection", "close")
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.end_headers()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer in one plain line; nothing of the request is repeated. A method without a `do_` is not allowed."""
        status = HTTPStatus.METHOD_NOT_ALLOWED if code == HTTPStatus.NOT_IMPLEMENTED else HTTPStatus(code)
        self.close_connection = True
        with contextlib.suppress(OSError):
            body = f"{status.value} {status.phrase}\n".encode()
            self._head(status, "text/plain; charset=utf-8", len(body))
            self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Keep quiet: the terminal belongs to the run."""


def serve(source: Source, host: str, port: int) -> tuple[WallServer, list[str]]:
    """Start a server; returns it and the lines that tell a user where it is.

    Raises:
        UserError: the host is no address of this machine, or no port is free.
    """
    server = WallServer(source, host, port)
    number, lines = server.server_port, [f"wall: {server.address}"]
    if number != port:
        lines.append(f"port {port} is taken; the wall is on {number}")
    if server.local:
        here = f"{getpass.getuser()}@{socket.gethostname()}"
        lines.append(f"from another machine: ssh -L {number}:localhost:{number} {here}, then the same address")
    return server, lines


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a host name or address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _event(topic: str, text: str) -> bytes:
    """Return one server-sent event; the text is on one line."""
    return f"event: {topic}\ndata: {text}\n\n".encode()


def _host_name(header: str) -> str:
    """The name in a `Host` header, without the port: a tunnel may end at any."""
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return ""


def _bind(server: WallServer, host: str, port: int) -> None:
    address = "127.0.0.1" if host == "localhost" else host
    for number in range(port, min(port + PORTS_TRIED, 65536)):
        try:
            ThreadingHTTPServer.__init__(server, (address, number), _Handler)
            return
        except PermissionError:
            problem = "is not allowed to this user"
        except socket.gaierror:
            raise UserError(f"live_host must be an address of this machine, not {host!r}") from None
        except OSError as error:
            if error.errno is not None and error.strerror == "Cannot assign requested address":
                raise UserError(f"live_host must be an address of this machine, not {host!r}") from None
            problem = "is taken, and so are those after it"
    raise UserError(f"live_port: {port} {problem}")


def _load_files() -> dict[str, tuple[bytes, str]]:
    """Return the page's files by the path they are asked for; what is not among them does not exist."""
    folder = importlib.resources.files(__package__) / "static"
    files = {f"/{file.name}": (file.read_bytes(), KINDS[Path(file.name).suffix]) for file in folder.iterdir()}
    return {**files, "/": files["/index.html"]}
