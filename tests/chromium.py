"""A Chromium without a window, driven over a pair of pipes by its DevTools protocol: real clicks and keys, no other package."""

import base64
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_OPTIONS = (
    "--headless=new",
    "--no-sandbox",  # the test may run as root in a container; the pages are ours
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
)
_PATIENCE_S = 120.0


class Tab:
    """A tab, what it complained about and what it asked for."""

    def __init__(self, commands: Any, answers: Any) -> None:
        self._commands, self._answers, self._count, self._session = commands, answers, 0, ""
        self._rest = b""
        self.complaints: list[str] = []
        self.requests: list[str] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command, and its answer."""
        self._count += 1
        session = {"sessionId": self._session} if self._session else {}
        self._commands.write(json.dumps({"id": self._count, "method": method, "params": parameters} | session).encode() + b"\0")
        self._commands.flush()
        while (message := self._next()).get("id") != self._count:
            pass
        assert "error" not in message, message
        found: dict[str, Any] = message["result"]
        return found

    def open(self, path: Path) -> None:
        """Show a file, and wait until it is loaded."""
        self.send("Page.navigate", url=path.as_uri())
        while self._next().get("method") != "Page.loadEventFired":
            pass

    def run(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        found = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def click(self, expression: str) -> None:
        """Click where a person would: at the middle of an element."""
        box = f"(e => {{ e.scrollIntoView({{ block: 'center' }}); return e.getBoundingClientRect().toJSON(); }})({expression})"
        place = self.run(box)
        at = {"x": place["x"] + place["width"] / 2, "y": place["y"] + place["height"] / 2}
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **at)

    def press(self, key: str) -> None:
        """Press a key and let it go."""
        typed = {"text": "\r"} if key == "Enter" else {}  # a button waits for the character
        self.send("Input.dispatchKeyEvent", type="keyDown", key=key, code=key, **typed)
        self.send("Input.dispatchKeyEvent", type="keyUp", key=key, code=key)

    def look(self, width: int, height: int, dark: bool = False, phone: bool = False) -> None:
        """Make the window so large, and prefer light or dark."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self, path: Path, whole: bool = False) -> None:
        """A PNG of what is seen, or of the whole page."""
        found = self.send("Page.captureScreenshot", captureBeyondViewport=whole, **self._clip(whole))
        path.write_bytes(base64.b64decode(found["data"]))

    def pdf(self) -> bytes:
        """The page as it is printed."""
        return base64.b64decode(self.send("Page.printToPDF", printBackground=False)["data"])

    def _clip(self, whole: bool) -> dict[str, Any]:
        size = self.send("Page.getLayoutMetrics")["cssContentSize"]
        return {"clip": {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}} if whole else {}

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            more = self._answers.read1(1 << 20)
            assert more, "the browser has gone"
            self._rest += more
        text, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        match message.get("method"):
            case "Runtime.exceptionThrown" | "Log.entryAdded":
                self.complaints.append(json.dumps(message["params"]))
            case "Runtime.consoleAPICalled" if message["params"]["type"] in ("error", "warning", "assert"):
                self.complaints.append(json.dumps(message["params"]))
            case "Network.requestWillBeSent":
                self.requests.append(message["params"]["request"]["url"])
        return message


@contextmanager
def tab(folder: Path) -> Iterator[Tab]:
    """A tab of a browser of its own, whose profile lies in the folder."""
    assert PROGRAM is not None
    (read_commands, write_commands), (read_answers, write_answers) = os.pipe(), os.pipe()
    words = [PROGRAM, *_OPTIONS, f"--user-data-dir={folder / 'profile'}"]
    # The browser looks for its pipes at 3 and 4.
    shell = ["bash", "-c", f'exec "$@" 3<&{read_commands} 4>&{write_answers}', "bash", *words]
    process = subprocess.Popen(
        shell, pass_fds=(read_commands, write_answers), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.close(read_commands)
    os.close(write_answers)
    timer = threading.Timer(_PATIENCE_S, process.kill)
    timer.start()
    with os.fdopen(write_commands, "wb") as commands, os.fdopen(read_answers, "rb") as answers:
        try:
            yield Tab(commands, answers)
        finally:
            timer.cancel()
            process.terminate()
            process.wait(30)
