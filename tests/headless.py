"""Headless Chromium controlled through its debugging pipe, without driver, port or network."""

import base64
import fcntl
import itertools
import json
import os
import subprocess
import time
from contextlib import contextmanager, suppress

OPTIONS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")


@contextmanager
def chromium(profile, url, *, width, height=1600, dark=False):
    """Open a page at a given width, including those of phones, and wait until it is loaded."""
    # Chromium reads commands from descriptor 3 and answers on 4.
    take, send = os.pipe()
    answers, give = os.pipe()
    ends = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in (take, give)]
    os.close(take)
    os.close(give)
    words = ["chromium", *OPTIONS, f"--user-data-dir={profile}", "--remote-debugging-pipe", "about:blank"]
    process = subprocess.Popen(
        words,
        preexec_fn=lambda: [os.dup2(end, place) for place, end in enumerate(ends, start=3)],
        pass_fds=(3, 4),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    for end in ends:
        os.close(end)
    page = Page(send, answers)
    try:
        page.open(url, width, height, dark)
        yield page
    finally:
        with suppress(OSError):
            page.call("Browser.close", session=False)
        os.close(send)
        os.close(answers)
        process.wait(timeout=30)


class Page:
    """Loaded page; ``problems`` lists errors and warnings of its console, and exceptions."""

    def __init__(self, send, answers):
        self.send, self.answers, self.rest, self.session = send, answers, b"", None
        self.numbers, self.problems, self.loaded = itertools.count(1), [], False

    def open(self, url, width, height, dark):
        target = self.call("Target.createTarget", session=False, url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", session=False, targetId=target, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.loaded = False
        self.call("Page.navigate", url=url)
        limit = time.monotonic() + 90
        while not self.loaded and time.monotonic() < limit:
            self._heed(self._read())
        assert self.loaded

    def run(self, script):
        """Evaluate a script, await a promise, and return the value."""
        told = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def screenshot(self, path, *, full=True):
        data = self.call("Page.captureScreenshot", captureBeyondViewport=full)["data"]
        path.write_bytes(base64.b64decode(data))

    def call(self, method, *, session=True, **params):
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": params}
        if session:
            message["sessionId"] = self.session
        os.write(self.send, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]
            self._heed(answer)

    def _read(self):
        while b"\0" not in self.rest:
            more = os.read(self.answers, 1 << 20)
            if not more:
                raise OSError("the browser has gone")
            self.rest += more
        text, self.rest = self.rest.split(b"\0", 1)
        return json.loads(text)

    def _heed(self, event):
        method, params = event.get("method"), event.get("params", {})
        if method == "Page.loadEventFired":
            self.loaded = True
        elif method == "Runtime.exceptionThrown":
            self.problems.append(params["exceptionDetails"])
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.problems.append(params["args"])
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.problems.append(params["entry"])
