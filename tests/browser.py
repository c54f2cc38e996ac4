"""A headless Chromium, driven over WebDriver by Debian's chromedriver: `with Browser(folder) as browser`."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

THERE = shutil.which("chromium") is not None and shutil.which("chromedriver") is not None
WHY_NOT = "no browser: apt-get install chromium chromium-driver"
QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
KEYS = {"ArrowDown": "\ue015", "ArrowUp": "\ue013", "ArrowLeft": "\ue012", "ArrowRight": "\ue014", "Enter": "\ue007",
        "Home": "\ue011", "End": "\ue010"}  # fmt: skip


class Browser:
    """One window.

    Args:
        folder: for what the browser keeps.
        dark: whether pages are asked to be dark.
    """

    def __init__(self, folder: Path, *, dark: bool = False, width: int = 1400, height: int = 900) -> None:
        self._folder, self._size = folder, (width, height)
        self._dark = ["--blink-settings=preferredColorScheme=0"] if dark else []

    def __enter__(self) -> Self:
        """Start driver and browser."""
        self._url = f"http://127.0.0.1:{self._port()}"
        profile = f"--user-data-dir={self._folder / 'profile'}"
        size = f"--window-size={self._size[0]},{self._size[1]}"
        options = {"args": [*QUIET, *self._dark, profile, size]}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        try:
            made = self._call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        except BaseException:
            self._driver.kill()
            raise
        self._url += f"/session/{made['sessionId']}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End both."""
        try:
            self._call("DELETE", "")
        finally:
            self._driver.terminate()
            self._driver.wait(20)

    def open(self, page: Path) -> None:
        """Load a file."""
        self._call("POST", "/url", {"url": page.resolve().as_uri()})

    def run(self, script: str, *arguments: Any) -> Any:
        """Run JavaScript, and return what it returns."""
        return self._call("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def click(self, selector: str) -> None:
        """Click the middle of an element, as a hand would."""
        element = self._find(selector)
        self._call("POST", f"/element/{element}/click", {})

    def press(self, *keys: str) -> None:
        """Press keys, where the focus is."""
        pressed = [{"type": kind, "value": KEYS.get(key, key)} for key in keys for kind in ("keyDown", "keyUp")]
        self._call("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": pressed}]})

    def picture(self, file: Path) -> None:
        """Keep a picture of the window."""
        file.write_bytes(base64.b64decode(self._call("GET", "/screenshot")))

    def complaints(self) -> list[str]:
        """Return what the console has: errors and warnings of the page, what it wanted to load."""
        return [entry["message"] for entry in self._call("POST", "/se/log", {"type": "browser"})]

    def _port(self) -> str:
        """Start the driver, again where the port that it took was not free for IPv6 too; return its port."""
        log = self._folder / "driver.log"
        for _ in range(5):
            with log.open("w") as output:
                self._driver = subprocess.Popen(["chromedriver", "--port=0"], stdout=output, stderr=output)
            deadline = time.monotonic() + 60
            while self._driver.poll() is None and time.monotonic() < deadline:
                found = re.search(r"successfully on port (\d+)", log.read_text())
                if found:
                    return found[1]
                time.sleep(0.05)
            self._driver.kill()
            self._driver.wait()
        raise RuntimeError(f"chromedriver did not start: {log.read_text()}")

    def _find(self, selector: str) -> str:
        found = self._call("POST", "/element", {"using": "css selector", "value": selector})
        return str(next(iter(found.values())))

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self._url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(error.read().decode()[:2000]) from error
