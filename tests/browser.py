"""Chromium, driven by chromedriver over the plain WebDriver protocol.

Both come from Debian's packages `chromium` and `chromium-driver`. A browser is a context manager with a fresh
profile; only the processes started here are ended.
"""

import base64
import http.client
import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from tests.servers import LOOPBACK, accepts, free_port, installed, wait_until

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars",
)  # fmt: skip
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
"""The name that WebDriver gives to references of elements."""

KEYS = {"Tab": "\ue004", "Enter": "\ue007", "Escape": "\ue00c", "Left": "\ue012", "Up": "\ue013", "Right": "\ue014", "Down": "\ue015", "Shift": "\ue008"}
DEADLINE_S = 15.0


class Refused(Exception):
    """What the browser would not do, in its own words."""


class Browser:
    """One window, 1440 × 900 unless told otherwise. Sizes are those of the page, in CSS pixels."""

    def __init__(self, directory: Path, width: int = 1440, height: int = 900) -> None:
        self._driver_program, self._chromium = installed("chromedriver"), installed("chromium")
        self._directory = directory
        self._size = (width, height)
        self._port = free_port()
        self._driver: subprocess.Popen[bytes] | None = None
        self._session = ""
        self._said: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        self._directory.mkdir(parents=True, exist_ok=True)
        with (self._directory / "chromedriver.log").open("wb") as log:
            self._driver = subprocess.Popen(
                [self._driver_program, f"--port={self._port}"], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            wait_until(lambda: accepts(self._port), DEADLINE_S, "chromedriver to listen")
            options = {
                "binary": self._chromium,
                "args": [*FLAGS, f"--user-data-dir={self._directory / 'profile'}"],
                "perfLoggingPrefs": {"enableNetwork": True},
            }
            wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"}}
            self._session = self._ask("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]
            self.resize(*self._size)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end()

    def _end(self) -> None:
        """In order, so that chromedriver ends the browser that it started."""
        if self._session:
            self._ask("DELETE", f"/session/{self._session}")
            self._session = ""
        if self._driver is not None:
            self._driver.send_signal(signal.SIGTERM)
            self._driver.wait(60)
            self._driver = None

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        connection = http.client.HTTPConnection(LOOPBACK, self._port, timeout=120)
        try:
            connection.request(method, path, None if body is None else json.dumps(body), {"Content-Type": "application/json"})
            value = json.loads(connection.getresponse().read())["value"]
        finally:
            connection.close()
        if isinstance(value, dict) and "error" in value:
            raise Refused(f"{value['error']}: {value['message'].splitlines()[0]}")
        return value

    def _do(self, method: str, path: str, body: Any = None) -> Any:
        return self._ask(method, f"/session/{self._session}{path}", body)

    def chrome(self, command: str, **parameters: Any) -> Any:
        """A command of the DevTools protocol."""
        return self._do("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def resize(self, width: int, height: int) -> None:
        self.chrome("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def prefer(self, scheme: str) -> None:
        """What the system prefers: `light` or `dark`."""
        self.chrome("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def open(self, url: str) -> None:
        self._do("POST", "/url", {"url": url})

    def back(self) -> None:
        self._do("POST", "/back", {})

    def run(self, script: str, *arguments: Any) -> Any:
        """What a function body returns in the page."""
        return self._do("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def find(self, selector: str) -> dict[str, str]:
        return self._do("POST", "/element", {"using": "css selector", "value": selector})

    def text(self, selector: str) -> str:
        """The visible text of the first match; empty if there is none."""
        return self.run("return document.querySelector(arguments[0])?.innerText ?? ''", selector)

    def texts(self, selector: str) -> list[str]:
        return self.run("return [...document.querySelectorAll(arguments[0])].map((node) => node.innerText)", selector)

    def click(self, selector: str) -> None:
        """Once it is there and can be clicked: a page draws itself anew while somebody reaches for it."""

        def clicked() -> bool:
            nonlocal refused
            try:
                self._do("POST", f"/element/{self.find(selector)[ELEMENT]}/click", {})
            except Refused as error:
                refused = str(error)
                return False
            return True

        refused = ""
        try:
            wait_until(clicked, DEADLINE_S, f"{selector} to be clicked")
        except BaseException as error:
            error.add_note(refused)
            raise

    def press(self, *keys: str) -> None:
        """Keys by name, or text, to what has the focus; a key after `Shift+` is pressed with it."""
        actions: list[dict[str, str]] = []
        for key in keys:
            held, key = (["\ue008"], key[6:]) if key.startswith("Shift+") else ([], key)
            actions += [{"type": "keyDown", "value": k} for k in held]
            for character in [KEYS[key]] if key in KEYS else key:
                actions += [{"type": "keyDown", "value": character}, {"type": "keyUp", "value": character}]
            actions += [{"type": "keyUp", "value": k} for k in held]
        self._do("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    def wait(self, condition: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S) -> Any:
        """The first true value of a condition on the page."""
        return wait_until(condition, deadline_s, what)

    def screenshot(self, path: Path) -> Path:
        path.write_bytes(base64.b64decode(self._do("GET", "/screenshot")))
        return path

    def errors(self) -> list[str]:
        """What the console has complained of since it was asked last."""
        return [f"{e['level']}: {e['message']}" for e in self._do("POST", "/se/log", {"type": "browser"}) if e["level"] in ("SEVERE", "WARNING")]

    def requests(self) -> list[str]:
        """Every address that the page has asked for, since the browser began."""
        self._said += [json.loads(entry["message"])["message"] for entry in self._do("POST", "/se/log", {"type": "performance"})]
        sent = [m["params"] for m in self._said if m["method"] in ("Network.requestWillBeSent", "Network.webSocketCreated")]
        return [params["request"]["url"] if "request" in params else params["url"] for params in sent]


def host_of(url: str) -> str:
    return urlsplit(url).netloc
