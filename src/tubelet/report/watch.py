"""A report that follows running jobs: a small server for this machine alone."""

from __future__ import annotations

import hashlib
import secrets
import shutil
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

from tubelet.report.films import media_type
from tubelet.report.page import body, checkpoints, page
from tubelet.report.table import find_runs

SECONDS = 5.0
"""Between two looks of an open page."""


class Watch(ThreadingHTTPServer):
    """Serves the report on `folder` on 127.0.0.1 at `address`, which has a secret part: other users of this machine
    could connect, too. port 0: any that is free.

    Raises ValueError if the port is in use, or there is no run.
    """

    daemon_threads = True

    def __init__(self, folder: Path, port: int = 0) -> None:
        find_runs(folder)
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except (OSError, OverflowError) as error:
            raise ValueError(f"--port {port}: {error}") from error
        self.folder = folder
        self.secret = secrets.token_urlsafe(16)
        self.pictures: dict[str, bytes] = {}
        self.files: dict[str, Path] = {}

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/{self.secret}/"

    def body(self) -> str:
        runs = find_runs(self.folder)
        self.files = {str(path.relative_to(self.folder)): path for run in runs for path in checkpoints(run)}
        return body(self.folder, runs, self.folder, self.embed)

    def embed(self, picture: bytes) -> str:
        name = f"picture/{hashlib.sha256(picture).hexdigest()[:32]}"
        self.pictures[name] = picture
        return name


class _Handler(BaseHTTPRequestHandler):
    server: Watch

    def do_GET(self) -> None:
        try:
            self._answer()
        except ConnectionError:
            pass  # the reader has left
        except (OSError, ValueError) as error:  # for example, the runs were moved: the page says so, and goes on asking
            self._send(str(error).encode(), "text/plain; charset=utf-8", status=HTTPStatus.SERVICE_UNAVAILABLE)

    def _answer(self) -> None:
        # a page of another site may be made to point at this machine: then it has another name
        names = (f"127.0.0.1:{self.server.server_port}", f"localhost:{self.server.server_port}")
        path = unquote(self.path)
        if self.headers.get("Host") not in names or not path.startswith(f"/{self.server.secret}/"):
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        name = path.removeprefix(f"/{self.server.secret}/")
        if name == "":
            self._send(page(self.server.folder, self.server.body(), SECONDS).encode(), "text/html; charset=utf-8")
        elif name == "page":
            self._send(self.server.body().encode(), "text/html; charset=utf-8")
        elif name in self.server.pictures:
            picture = self.server.pictures[name]
            self._send(picture, media_type(picture), "max-age=31536000, immutable")
        elif name in self.server.files and self.server.files[name].is_file():
            self._send_file(self.server.files[name])
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def _send(self, data: bytes, kind: str, cache: str = "no-store", status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send_response(status)
        headers = {"Content-Type": kind, "Content-Length": str(len(data)), "Cache-Control": cache}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def _send_file(self, path: Path) -> None:
        with path.open("rb") as file:
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", "application/octet-stream")
            self.end_headers()
            shutil.copyfileobj(file, self.wfile)

    def log_message(self, *_: object) -> None:
        """Nothing: a line per request is no use."""
