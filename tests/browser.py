"""A headless Chromium, driven by its DevTools protocol over a pipe: no driver and no package is needed."""

from __future__ import annotations

import base64
import io
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--remote-debugging-pipe", "--hide-scrollbars",
)  # fmt: skip
PATIENCE = 120.0


def find() -> str | None:
    return next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
    )


class Browser:
    """One page. `problems`: what it wrote to the console as a warning or an error, and exceptions."""

    def __init__(self, profile: Path) -> None:
        program = find()
        assert program is not None
        there, self._to = os.pipe()
        self._from, back = os.pipe()
        command = f'exec "$0" "$@" 3<&{there} 4>&{back}'  # Chromium reads from 3 and writes to 4
        arguments = [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        log = (profile.parent / "chromium.log").open("wb")
        self._process = subprocess.Popen(
            ["/bin/bash", "-c", command, *arguments], pass_fds=(there, back), stdout=log, stderr=log
        )
        log.close()
        os.close(there)
        os.close(back)
        self._read, self._count, self._session = b"", 0, ""
        self.problems: list[str] = []
        page = next(x for x in self.call("Target.getTargets")["targetInfos"] if x["type"] == "page")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def close(self) -> None:
        os.close(self._to)  # it ends when nobody is there to talk to
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
        os.close(self._from)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self._count += 1
        message = {"id": self._count, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._count:
                assert "error" not in answer, answer["error"]
                result: dict[str, Any] = answer["result"]
                return result

    def open(self, address: str) -> None:
        self.call("Page.navigate", url=address)
        self.until(lambda: self.value("document.readyState") == "complete")

    def value(self, expression: str) -> Any:
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def until(self, holds: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE
        while not holds():
            assert time.monotonic() < end, "it did not happen"
            time.sleep(0.05)

    def pointer(self, x: float, y: float, click: bool = False) -> None:
        """Move the mouse to a place in the window, in pixels; and click."""
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        for kind in ("mousePressed", "mouseReleased") if click else ():
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def window(self, width: int, height: int, dark: bool = False) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def screenshot(self, file: Path) -> np.ndarray:
        """The window as [H,W,3]."""
        file.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))
        return np.asarray(Image.open(io.BytesIO(file.read_bytes())).convert("RGB"))

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._read:
            ready, _, _ = select.select([self._from], [], [], PATIENCE)
            assert ready, "Chromium does not answer"
            data = os.read(self._from, 1 << 20)
            assert data, "Chromium has ended"
            self._read += data
        message, _, self._read = self._read.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        self._note(found.get("method", ""), found.get("params", {}))
        return found

    def _note(self, event: str, params: dict[str, Any]) -> None:
        bad = ("error", "warning", "assert")
        if event == "Runtime.exceptionThrown":
            self.problems.append(str(params["exceptionDetails"]))
        elif (event == "Runtime.consoleAPICalled" and params["type"] in bad) or (
            event == "Log.entryAdded" and params["entry"]["level"] in bad
        ):
            self.problems.append(str(params))
