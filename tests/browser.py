"""Opens pages in headless Chromium, and lists what is wrong with them, at two widths.

It speaks the DevTools protocol over a pipe, so it needs nothing but the browser:
``python tests/browser.py index.html``.
"""

import json
import os
import select
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
WIDTHS = (1280, 390)
_SECONDS = 30.0  # for one answer
_NAMED = {"Audio", "button", "image", "link", "note", "region", "table", "columnheader", "heading"}

# Each has to return a list of problems.
_LAYOUT = """(() => {
  const problems = [], width = innerWidth;
  if (document.documentElement.scrollWidth > width) {
    const wide = [...document.querySelectorAll("main *")].filter(e =>
      e.getBoundingClientRect().right > width + 1 && !e.parentElement.closest(".wide"));
    problems.push(`the page is ${document.documentElement.scrollWidth} wide: `
      + wide.slice(0, 3).map(e => e.outerHTML.slice(0, 80)).join(" | "));
  }
  for (const box of document.querySelectorAll(".wide"))
    if (box.scrollWidth > box.clientWidth && box.tabIndex !== 0)
      problems.push("a table that scrolls cannot be reached by the keyboard");
  const ids = [...document.querySelectorAll("[id]")].map(e => e.id);
  for (const id of new Set(ids.filter((id, at) => ids.indexOf(id) !== at)))
    problems.push(`the id ${id} is there twice`);
  const levels = [...document.querySelectorAll("h1, h2, h3, h4")].map(e => Number(e.tagName[1]));
  if (levels[0] !== 1 || levels.filter(level => level === 1).length !== 1)
    problems.push("there is not one h1, at the top");
  if (levels.some((level, at) => at && level > levels[at - 1] + 1))
    problems.push(`heading levels are left out: ${levels}`);
  if (!document.title || !document.documentElement.lang) problems.push("no title or language");
  return problems;
})()"""
_CLASS = "document.querySelectorAll('table.sortable thead th')[%d].className"
_COUNT_HEADERS = "document.querySelectorAll('table.sortable thead th').length"
_FOCUS = "document.querySelectorAll('table.sortable thead th')[%d].querySelector('button').focus()"
_CLICK = "document.querySelectorAll('table.sortable thead th')[%d].querySelector('button').click()"
_IS_SORTED = """(() => {
  const header = document.querySelectorAll("table.sortable thead th")[%d];
  const table = header.closest("table"), column = header.cellIndex, how = header.ariaSort;
  const where = `${table.caption.textContent}, ${header.textContent.trim()}`;
  if (how !== "%s") return [`${where}: aria-sort is ${how} instead of %s`];
  if (table.querySelectorAll("[aria-sort]").length !== 1)
    return [`${where}: several columns claim to be sorted`];
  const texts = [...table.tBodies[0].rows].map(row => row.cells[column].dataset.value
    ?? row.cells[column].textContent.trim());
  const filled = texts.filter(text => text !== "");
  if (texts.slice(0, filled.length).includes("")) return [`${where}: cells without a value first`];
  const numeric = filled.every(text => !isNaN(parseFloat(text)));
  const sorted = filled.every((text, at) => {
    if (!at) return true;
    const order = numeric ? parseFloat(filled[at - 1]) - parseFloat(text)
      : filled[at - 1].localeCompare(text, undefined, { numeric: true });
    return how === "ascending" ? order <= 0 : order >= 0;
  });
  return sorted ? [] : [`${where}: not ${how}: ${filled.slice(0, 9)}`];
})()"""
_PLAYS = """Promise.all([...document.querySelectorAll("audio")].map(audio => new Promise(done => {
  audio.addEventListener("loadedmetadata", () =>
    done(audio.duration > 0 ? "" : `${audio.ariaLabel}: it has no sound`));
  audio.addEventListener("error", () => done(`${audio.ariaLabel}: ${audio.error.message}`));
  audio.preload = "metadata"; audio.load();
}))).then(problems => problems.filter(problem => problem))"""


def check_page(path: Path | str, widths: Sequence[int] = WIDTHS) -> list[str]:
    """What is wrong with a page that is opened from a file; empty if nothing is.

    Console messages, requests, overflow, tables that do not sort by keyboard and click, players
    that do not play, and what a screen reader has no name for.
    """
    problems = []
    for width in widths:
        with _page(Path(path).resolve().as_uri(), width) as page:
            problems += [f"{width} px: {problem}" for problem in page.problems()]
    return problems


@contextmanager
def _page(uri: str, width: int) -> Iterator["_Page"]:
    to_read, to_write = os.pipe(), os.pipe()  # of the browser
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [
            *(str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
            *(f"--user-data-dir={profile}", "--remote-debugging-pipe", "about:blank"),
        ]
        pipes = f"3<&{to_read[0]} 4>&{to_write[1]}"
        process = subprocess.Popen(
            ["bash", "-c", f"exec {shlex.join(command)} {pipes}"],
            pass_fds=(to_read[0], to_write[1]),
            stderr=subprocess.DEVNULL,
        )
        try:
            yield _Page(to_read[1], to_write[0], uri, width)
        finally:
            process.kill()
            process.wait()
            for end in (*to_read, *to_write):
                os.close(end)


class _Page:
    """A page in a browser that was just started."""

    def __init__(self, write: int, read: int, uri: str, width: int) -> None:
        self._write, self._read = write, read
        self._waiting, self._number = b"", 0
        self._session: dict[str, str] = {}
        self.events: list[dict] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        for domain in ("Page", "Runtime", "Log", "Network", "Accessibility"):
            self.call(f"{domain}.enable")
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.call("Page.navigate", url=uri)
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self._message())

    def call(self, method: str, **params: object) -> dict:
        """The result of a command of the protocol; events that come meanwhile are kept."""
        self._number += 1
        command = {"id": self._number, "method": method, "params": params, **self._session}
        os.write(self._write, json.dumps(command).encode() + b"\0")
        while True:
            message = self._message()
            if message.get("id") == self._number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return message["result"]
            self.events.append(message)

    def _message(self) -> dict:
        deadline = time.monotonic() + _SECONDS
        while b"\0" not in self._waiting:
            if not select.select([self._read], [], [], max(0, deadline - time.monotonic()))[0]:
                raise TimeoutError("the browser does not answer")
            if not (received := os.read(self._read, 1 << 20)):
                raise RuntimeError("the browser has ended")
            self._waiting += received
        message, self._waiting = self._waiting.split(b"\0", 1)
        return json.loads(message)

    def evaluate(self, script: str) -> list[str]:
        answer = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"]["exception"]["description"])
        return answer["result"].get("value")

    def problems(self) -> list[str]:
        problems = self.evaluate(_LAYOUT) + self._sorting() + self.evaluate(_PLAYS)
        return problems + self._names() + self._messages()

    def _sorting(self) -> list[str]:
        """Sorts by each header: by Enter, and then the other way round by a click."""
        problems = []
        for header in range(self.evaluate(_COUNT_HEADERS)):
            numeric = self.evaluate(_CLASS % header) == "count"
            orders = ("descending", "ascending") if numeric else ("ascending", "descending")
            self.evaluate(_FOCUS % header)
            self._press_enter()
            problems += self.evaluate(_IS_SORTED % (header, orders[0], orders[0]))
            self.evaluate(_CLICK % header)
            problems += self.evaluate(_IS_SORTED % (header, orders[1], orders[1]))
        return problems

    def _press_enter(self) -> None:
        key = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13}
        self.call("Input.dispatchKeyEvent", type="keyDown", text="\r", **key)
        self.call("Input.dispatchKeyEvent", type="keyUp", **key)

    def _names(self) -> list[str]:
        """What a screen reader would call by its kind alone."""
        nodes = self.call("Accessibility.getFullAXTree")["nodes"]
        return [
            f"{node['role']['value']} without a name"
            for node in nodes
            if not node["ignored"]
            and node["role"]["value"] in _NAMED
            and not node.get("name", {}).get("value", "").strip()
        ]

    def _messages(self) -> list[str]:
        problems = []
        for event in self.events:
            match event:
                case {"method": "Runtime.consoleAPICalled", "params": params}:
                    problems.append(f"console: {params['args'][0].get('value')}")
                case {"method": "Runtime.exceptionThrown", "params": params}:
                    problems.append(f"exception: {params['exceptionDetails']['text']}")
                case {"method": "Log.entryAdded", "params": {"entry": entry}}:
                    problems.append(f"{entry['level']}: {entry['text']}")
                case {"method": "Network.requestWillBeSent", "params": {"request": request}}:
                    if not request["url"].startswith(("file:", "data:", "about:")):
                        problems.append(f"request: {request['url']}")
        return problems


if __name__ == "__main__":
    found = check_page(sys.argv[1])
    print("\n".join(found) or "nothing is wrong")
    sys.exit(bool(found))
