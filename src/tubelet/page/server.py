"""The web server of the page, from Python's own library.

It is for one person on this machine. It listens on the loopback address unless told otherwise, and then takes only
requests that name that address, so that no other web page can reach it by a name of its own (DNS rebinding). An upload
needs a token that the page alone holds, is limited in size, and is deleted as soon as it is answered; one is dealt with
at a time.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from ipaddress import ip_address
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any
from urllib.parse import unquote

Answer = Callable[[Path, Path], dict[str, Any]]
"""(video file, folder to write to) -> what is sent as JSON. Raises ValueError with what the user is told."""

_CHUNK = 1 << 20
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data:; media-src blob:; connect-src 'self'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Refused(Exception):
    """A request that is not answered: the status and the reason."""

    def __init__(self, status: int, reason: str) -> None:
        self.status = status
        super().__init__(reason)


class PageServer(ThreadingHTTPServer):
    """Args: answer: what a video is answered with; host, port: where to listen, 0 for any free port; max_bytes: of an
    upload; title: what stands above the page. Raises OSError if the address cannot be used.
    """

    daemon_threads = True

    def __init__(self, answer: Answer, host: str, port: int, max_bytes: int, title: str) -> None:
        super().__init__((host, port), _Handler)
        self.answer, self.max_bytes, self.title = answer, max_bytes, title
        self.token, self.lock = secrets.token_urlsafe(24), Lock()

    @property
    def url(self) -> str:
        return f"http://{self.server_address[0]!s}:{self.server_address[1]}/"

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches it."""
        return ip_address(str(self.server_address[0])).is_loopback


class _Handler(BaseHTTPRequestHandler):
    server: PageServer
    timeout = 60  # seconds without a byte, after which an upload is given up

    def do_GET(self) -> None:
        try:
            self._check_host()
            if self.path != "/":
                raise Refused(404, "there is only one page")
        except Refused as refused:
            return self._send_json(refused.status, {"error": str(refused)})
        values = {"token": self.server.token, "max_bytes": self.server.max_bytes, "title": self.server.title}
        # `<` is written as an escape, so that no title can end the script
        page = (files("tubelet.page") / "page.html").read_text(encoding="utf-8")
        page = page.replace("VALUES", json.dumps(values).replace("<", "\\u003c"))
        self._send(200, "text/html; charset=utf-8", page.encode())

    def do_POST(self) -> None:
        try:
            self._check_host()
            if self.path != "/look":
                raise Refused(404, "there is only one page")
            if not secrets.compare_digest(self.headers.get("X-Token", ""), self.server.token):
                raise Refused(403, "load the page again: it belongs to an earlier start of this program")
            with self.server.lock, TemporaryDirectory(prefix="tubelet-") as folder:
                answered = self._answered(Path(folder), self._length())
            self._send_json(200, answered)
        except Refused as refused:
            self._send_json(refused.status, {"error": str(refused)})
        except (ConnectionError, TimeoutError):
            self.close_connection = True  # nobody is there any more

    def _answered(self, folder: Path, length: int) -> dict[str, Any]:
        name = unquote(self.headers.get("X-Name", "")) or "the video"
        ending = re.search(r"\.\w{1,5}$", name, re.ASCII)
        video = folder / f"upload{ending[0] if ending else ''}"  # a reader may go by the ending; the name is the user's
        self._receive(video, length)
        try:
            return self.server.answer(video, folder)
        except ValueError as error:
            raise Refused(400, str(error).replace(str(video), name)) from error
        except Exception as error:
            self.log_error("%r", error)
            raise Refused(500, f"{type(error).__name__}: {error}") from error

    def _receive(self, path: Path, length: int) -> None:
        with path.open("wb") as file:
            while length:
                chunk = self.rfile.read(min(_CHUNK, length))
                if not chunk:
                    raise ConnectionError("the upload ended early")
                file.write(chunk)
                length -= len(chunk)

    def _length(self) -> int:
        given = self.headers.get("Content-Length", "")
        if not (given.isascii() and given.isdigit()):
            raise Refused(411, "an upload must say its length")
        if not 0 < int(given) <= self.server.max_bytes:
            raise Refused(413, f"{int(given):,} bytes: an upload may have 1 to {self.server.max_bytes:,} (--max-mb)")
        return int(given)

    def _check_host(self) -> None:
        host, _, port = self.headers.get("Host", "").rpartition(":")
        address = str(self.server.server_address[0])
        known = (address, f"[{address}]", "localhost")
        if self.server.is_local and (host not in known or port != str(self.server.server_address[1])):
            raise Refused(403, f"this page is at {self.server.url}")

    def _send_json(self, status: int, contents: dict[str, Any]) -> None:
        self._send(status, "application/json", json.dumps(contents).encode())

    def _send(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        for name, value in {**_HEADERS, "Content-Type": kind, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, *_: Any) -> None:
        """Nothing: the page says all that the user needs."""


def serve(answer: Answer, host: str, port: int, max_bytes: int, title: str) -> None:
    """Print the address and serve until Ctrl-C. Raises ValueError if the address cannot be used."""
    try:
        server = PageServer(answer, host, port, max_bytes, title)
    except (OSError, OverflowError) as error:
        raise ValueError(f"cannot listen on {host}, port {port}: {error} (--host, --port)") from error
    with server:
        print(f"{title}\nopen {server.url} in a browser; Ctrl-C ends it", flush=True)
        if not server.is_local:
            print("other machines can reach it, and upload videos", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
