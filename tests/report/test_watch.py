import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tubelet.report.watch import Watch


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "runs" / "0" / "checkpoints").mkdir(parents=True)
    (tmp_path / "runs" / "0" / "checkpoints" / "last.ckpt").write_bytes(b"weights")
    (tmp_path / "runs" / "0" / "config.yaml").write_text("seed: 0\n")
    (tmp_path / "x").write_text("secret")
    return tmp_path / "runs"


def test_only_the_page_is_served_and_only_with_the_secret(folder: Path) -> None:
    def get(path: str, host: str | None = None) -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{server.server_port}{path}", headers={"Host": host} if host else {}
        )
        try:
            return urllib.request.urlopen(request, timeout=20).read()
        except urllib.error.HTTPError as error:
            return error.code

    with Watch(folder) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        secret = f"/{server.secret}"
        assert b"1 unfinished" in get(f"{secret}/")
        assert get(f"{secret}/0/checkpoints/last.ckpt") == b"weights"
        assert get("/") == 404
        assert get(f"{secret}/", host="elsewhere.example") == 404
        for path in ("0/config.yaml", "../x", "0/checkpoints/../../../x"):
            assert get(f"{secret}/{path}") == 404
        server.shutdown()


def test_runs_that_are_gone_for_a_while(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with Watch(folder) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"{server.address}page"
        folder.rename(folder.with_name("moved"))
        with pytest.raises(urllib.error.HTTPError, match="503") as found:
            urllib.request.urlopen(address, timeout=20)
        assert found.value.read().decode() == f"{folder}: no run directory in it"
        folder.with_name("moved").rename(folder)
        assert b"1 unfinished" in urllib.request.urlopen(address, timeout=20).read()
        server.shutdown()
    assert capfd.readouterr().err == ""


def test_what_cannot_be_served(folder: Path, tmp_path: Path) -> None:
    with Watch(folder) as server, pytest.raises(ValueError, match=f"--port {server.server_port}: .*in use"):
        Watch(folder, server.server_port)
    with pytest.raises(ValueError, match=r"--port 80000: .*0-65535"):
        Watch(folder, 80000)
    with pytest.raises(ValueError, match="no run directory"):
        Watch(tmp_path / "nowhere")
