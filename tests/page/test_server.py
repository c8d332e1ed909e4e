"""The page's server by plain requests: what it answers, and what it refuses."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tubelet.page.server import PageServer, serve

LIMIT = 1000


@contextmanager
def served(answer: Any, title: str = "a model") -> Iterator[PageServer]:
    with PageServer(answer, "127.0.0.1", 0, LIMIT, title) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def ask(server: PageServer, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, str]:
    connection = HTTPConnection("127.0.0.1", server.server_address[1], timeout=10)
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    return response.status, text


seen: list[Path] = []


def echo(video: Path, folder: Path) -> dict[str, Any]:
    seen.append(video)
    content = video.read_bytes()
    if content == b"broken":
        raise ValueError(f"{video}: no video")
    if content == b"bug":
        raise KeyError("a bug")
    return {"name": video.name, "size": len(content), "same": video.parent == folder}


def test_a_video_is_answered_and_deleted() -> None:
    with served(echo, title="</script><b>") as server:
        status, page = ask(server, "GET", "/")
        assert status == 200
        values = re.search(r"const values = (\{.*\});", page)
        assert values is not None
        assert "</script><b>" not in page
        assert json.loads(values[1]) == {"token": server.token, "max_bytes": LIMIT, "title": "</script><b>"}
        for name, kept in (("a.MP4", "upload.MP4"), ("..%2F..%2Fx", "upload"), ("%C3%A4.webm", "upload.webm")):
            status, text = ask(server, "POST", "/look", b"12345", X_Token=server.token, X_Name=name)
            assert (status, json.loads(text)) == (200, {"name": kept, "size": 5, "same": True})
        assert not any(path.exists() or path.parent.exists() for path in seen)
        status, text = ask(server, "POST", "/look", b"broken", X_Token=server.token, X_Name="my.mp4")
        assert (status, json.loads(text)) == (400, {"error": "my.mp4: no video"})
        status, text = ask(server, "POST", "/look", b"bug", X_Token=server.token)
        assert (status, json.loads(text)) == (500, {"error": "KeyError: 'a bug'"})
        assert not any(path.parent.exists() for path in seen)


def test_what_is_refused() -> None:
    before = len(seen)
    with served(echo) as server:
        port = server.server_address[1]
        assert server.is_local
        for host in ("evil.example", f"evil.example:{port}", "127.0.0.1:1", "127.0.0.1"):
            assert ask(server, "GET", "/", Host=host)[0] == 403, host
            assert ask(server, "POST", "/look", b"1", Host=host, X_Token=server.token)[0] == 403, host
        assert ask(server, "GET", "/", Host=f"localhost:{port}")[0] == 200
        assert ask(server, "GET", "/../answer.py")[0] == 404
        assert ask(server, "POST", "/other", b"1", X_Token=server.token)[0] == 404
        assert ask(server, "POST", "/look", b"1")[0] == 403
        assert ask(server, "POST", "/look", b"1", X_Token="guessed")[0] == 403
        assert ask(server, "POST", "/look", b"", X_Token=server.token)[0] == 413
        status, text = ask(server, "POST", "/look", b"x" * (LIMIT + 1), X_Token=server.token)
        assert (status, "1,001 bytes" in text) == (413, True)
        assert ask(server, "POST", "/look", None, X_Token=server.token, Content_Length="-1")[0] == 411
        assert ask(server, "PUT", "/look", b"1")[0] == 501
    assert len(seen) == before


def test_an_address_in_use_is_a_clear_error() -> None:
    with served(echo) as server:
        port = server.server_address[1]
        with pytest.raises(ValueError, match=rf"cannot listen on 127\.0\.0\.1, port {port}: .*--port"):
            serve(echo, "127.0.0.1", int(port), LIMIT, "a model")
    with pytest.raises(ValueError, match=r"cannot listen on nowhere\.invalid, port 0"):
        serve(echo, "nowhere.invalid", 0, LIMIT, "a model")
