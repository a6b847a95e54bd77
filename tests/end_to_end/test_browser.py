"""report.html in a real browser: it works, it asks for nothing, it fits, in both languages.

Each test prints where it kept its screenshots. Needs chromium or chrome.
"""

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from drawn import draw_folder
from vitral.cli import report  # noqa: F401 - the verb hangs itself on the command
from vitral.data.shapes import draw
from vitral.evaluation import (
    evaluate_single_label,
    read_predictions,
    write_evaluation,
    write_predictions,
)
from vitral.model import build
from vitral.report import examples, write_report
from vitral.specs import Calibration, ImageSpec, ModelSpec
from vitral.weights import artifact
from vitral.weights.card import Card

NAMES = ["빨간 지붕", "초록 들판", "푸른 바다"]
PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe")
DATA = "JSON.parse(document.getElementById('data').textContent)"
OFFLINE = "--host-resolver-rules=MAP * ~NOTFOUND"


@dataclass
class Browser:
    """A headless browser over its debugging pipe: messages are JSON that end with a zero byte."""

    process: subprocess.Popen
    sender: int
    receiver: int
    waiting: bytes = b""
    number: int = 0
    session: str | None = None
    events: list = field(default_factory=list)

    def call(self, method, **parameters):
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session is not None:
            message["sessionId"] = self.session
        os.write(self.sender, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.receive()
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def receive(self):
        until = time.monotonic() + 60
        while b"\0" not in self.waiting:
            ready = select.select([self.receiver], [], [], max(0, until - time.monotonic()))[0]
            assert ready, "the browser does not answer"
            part = os.read(self.receiver, 1 << 20)
            assert part, "the browser went away"
            self.waiting += part
        message, _, self.waiting = self.waiting.partition(b"\0")
        return json.loads(message)

    def open(self, path, *, width=1200, height=900, scheme="light", scripts=True):
        """A fresh page of this size and colour scheme, loaded."""
        self.session, self.events = None, []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        found = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = found["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.call("Emulation.setDeviceMetricsOverride", **metrics)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", features=features)
        self.call("Emulation.setScriptExecutionDisabled", value=not scripts)
        self.call("Page.navigate", url=Path(path).as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self.receive())

    def run(self, script):
        """The value of an expression in the page."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def click(self, selector):
        """With the mouse, in the middle of the first element of a selector."""
        x, y = self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            "e.scrollIntoView({block: 'center', inline: 'center'});"
            "const r = e.getBoundingClientRect();"
            "return [r.x + r.width / 2, r.y + r.height / 2] })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            mouse = {"type": kind, "x": x, "y": y, "button": "left", "clickCount": 1}
            self.call("Input.dispatchMouseEvent", **mouse)

    def press(self, key, code):
        for kind in ("rawKeyDown", "keyUp"):
            pressed = {"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code}
            self.call("Input.dispatchKeyEvent", **pressed)

    def screenshot(self, path):
        """The whole page."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        shot = self.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))
        print(f"screenshot: {path}")

    def check(self):
        """No error on the console, no request but for the file and data in it, no overflow."""
        kinds = {event["method"]: event["params"] for event in self.events if "method" in event}
        assert "Runtime.exceptionThrown" not in kinds, kinds["Runtime.exceptionThrown"]
        assert "Runtime.consoleAPICalled" not in kinds, kinds["Runtime.consoleAPICalled"]
        assert "Log.entryAdded" not in kinds, kinds["Log.entryAdded"]
        urls = [
            event["params"]["request"]["url"]
            for event in self.events
            if event.get("method") == "Network.requestWillBeSent"
        ]
        assert urls, "the page itself is a request"
        assert all(url.startswith(("file:", "data:")) for url in urls)
        assert self.run("document.documentElement.scrollWidth <= innerWidth")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    program = next((found for name in PROGRAMS if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip(f"none of {', '.join(PROGRAMS)} is installed")
    hears, sender = os.pipe()
    receiver, says = os.pipe()

    def pipes():  # the browser reads from 3 and writes to 4
        low = [os.dup2(fd, fd + 100) for fd in (hears, says)]
        os.dup2(low[0], 3)
        os.dup2(low[1], 4)

    profile = f"--user-data-dir={tmp_path_factory.mktemp('profile')}"
    process = subprocess.Popen(
        [program, *FLAGS, OFFLINE, profile, "about:blank"],
        close_fds=False,
        preexec_fn=pipes,  # noqa: PLW1509 - no threads are needed between fork and exec
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(hears)
    os.close(says)
    found = Browser(process, sender, receiver)
    yield found
    found.session = None
    with contextlib.suppress(AssertionError, OSError):
        found.call("Browser.close")
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    os.close(sender)
    os.close(receiver)


@pytest.fixture
def three(tmp_path, vitral):
    """A run trained on three classes with Korean names."""
    photos = draw_folder(tmp_path / "사진", kinds=3, each=24)
    for folder, name in zip(sorted(photos.iterdir()), NAMES, strict=True):
        folder.rename(photos / name)
    options = ("--model", "mu/8", "--size", "32x32", "--epochs", "2", "--batch", "8")
    code, _, errors = vitral(
        "train", photos, *options, "--out", tmp_path / "run", "--set", "data.workers=0"
    )
    assert code == 0, errors
    return tmp_path / "run"


class Drawn:
    """Pictures by the names that the evaluation has."""

    def __init__(self, keys):
        self.keys = keys

    def __len__(self):
        return len(self.keys)

    def key(self, index):
        return self.keys[index]

    def read(self, index):
        return draw(0, index, 64).image


@pytest.fixture
def many(tmp_path):
    """A run of 200 classes, by the writers of the package."""
    run, random = tmp_path / "many", np.random.default_rng(0)
    classes = [f"종류 {i:03d} <{'긴' * (i % 9)} 이름>" for i in range(200)]
    labels = np.arange(4000) % 200
    logits = random.normal(0, 2, (4000, 200))
    logits[np.arange(4000), labels] += random.normal(9, 3, 4000)
    logits[labels % 10 == 3, 7] += 7
    keys = [f"val/{classes[label]}/{i:05d}.jpg" for i, label in enumerate(labels)]
    calibration = Calibration(temperature=1.3, threshold=0.6431, target=0.95, samples=4000)
    evaluation = evaluate_single_label(
        logits, labels, classes, keys, calibration=calibration, cross_fit=True
    )
    spec = ModelSpec(
        name="tiny", size=32, patch=8, width=24, depth=1, heads=3, mlp_width=48, classes=200
    )
    card = Card(
        model=spec, images=ImageSpec(size=(32, 32)), classes=tuple(classes), calibration=calibration
    )
    run.mkdir()
    artifact.save(run / "best", build(spec).state_dict(), card)
    write_predictions(run / "predictions.csv", evaluation)
    write_evaluation(run / "evaluation.json", evaluation)
    write_report(run, examples(Drawn(keys), evaluation.predictions))
    return run


LOOKS = [("light", 1200), ("dark", 1200), ("light", 380), ("dark", 380)]


def cell_of(selector):
    place = f"document.querySelector('{selector}').dataset.cell"
    return f"(cell => [cell.truth, cell.predicted])({DATA}.cells[{place}])"


def names_of(run, truth, predicted):
    rows = read_predictions(run / "predictions.csv").predictions
    return {p.key for p in rows if (p.label, p.answer) == (truth, predicted)}


def percents(text):
    return None if text == "–" else float(text.removesuffix("\xa0%"))


def slider_agrees(browser, run):
    """Whatever the slider says, numpy says."""
    rows = read_predictions(run / "predictions.csv").predictions
    scores = np.array([p.score for p in rows])
    right = np.array([p.correct for p in rows])
    last = int(browser.run("document.getElementById('sure').max"))
    for at in (0, last // 3, last * 9 // 10, last):
        browser.run(
            f"(s => {{ s.value = {at}; s.dispatchEvent(new Event('input')) }})"
            "(document.getElementById('sure'))"
        )
        told = {
            name: browser.run(f"document.getElementById('{name}').textContent")
            for name in ("threshold", "coverage", "accuracy", "unsure")
        }
        kept = scores >= float(browser.run(f"{DATA}.sure.thresholds[{at}]"))
        assert percents(told["coverage"]) == pytest.approx(100 * kept.mean(), abs=0.051)
        accuracy = 100 * np.mean(right[kept]) if kept.any() else None
        assert percents(told["accuracy"]) == pytest.approx(accuracy, abs=0.051)
        assert told["unsure"].replace("\u202f", "") == str((~kept).sum())


def test_three_classes_in_two_languages(browser, three, vitral, tmp_path):
    for lang, looks in (("en", LOOKS), ("ko", [LOOKS[0], LOOKS[3]])):
        page = tmp_path / f"{lang}.html"
        code, _, errors = vitral("report", three, "--lang", lang, "--out", page)
        assert (code, errors) == (0, "")
        for scheme, width in looks:
            browser.open(page, width=width, scheme=scheme)
            browser.check()
            browser.screenshot(tmp_path / f"three_{lang}_{scheme}_{width}.png")
        assert browser.run("document.documentElement.lang") == lang
        text = browser.run("document.body.innerText")
        assert ("클래스별 성능" in text) == (lang == "ko")
        assert ("Class by class" in text) == (lang == "en")
        assert all(name in text for name in NAMES)
    browser.open(page)
    assert browser.run("document.images.length > 9")
    assert browser.run("[...document.images].every(image => image.naturalWidth)")
    browser.click(".matrix button")
    truth, predicted = browser.run(cell_of("[data-cell]"))
    listed = browser.run("[...document.querySelectorAll('#cell li span')].map(e => e.textContent)")
    assert set(listed) == names_of(three, truth, predicted) != set()
    assert browser.run("document.querySelectorAll('#cell img').length") > 0
    browser.screenshot(tmp_path / "three_ko_cell.png")
    browser.press("Escape", 27)
    assert browser.run("document.getElementById('cell').hidden")
    slider_agrees(browser, three)
    browser.check()


def test_two_hundred_classes(browser, many, tmp_path):
    page = many / "report.html"
    assert page.stat().st_size < 5_000_000
    for scheme, width in (LOOKS[1], LOOKS[2]):
        browser.open(page, width=width, scheme=scheme)
        browser.check()
        browser.screenshot(tmp_path / f"many_{scheme}_{width}.png")
    browser.open(page)
    card = json.loads((many / "best" / "model.json").read_text(encoding="utf-8"))
    assert browser.run("document.getElementById('threshold').textContent") == "64.3\xa0%"
    assert card["calibration"]["threshold"] == 0.6431
    assert browser.run("document.querySelectorAll('.matrix tbody tr').length") <= 20
    browser.click(".scores [data-cell] button")
    truth, predicted = browser.run(cell_of(".scores [data-cell]"))
    listed = browser.run("[...document.querySelectorAll('#cell li span')].map(e => e.textContent)")
    assert set(listed) == names_of(many, truth, predicted) != set()
    assert browser.run("document.querySelectorAll('#cell img').length") > 0
    browser.screenshot(tmp_path / "many_cell.png")
    slider_agrees(browser, many)
    # the keyboard alone: along the row to the next number, and open it
    browser.run("document.querySelector('.matrix button').focus()")
    browser.press("ArrowRight", 39)
    place = browser.run("document.activeElement.closest('td').dataset.cell")
    assert place != browser.run("document.querySelector('.matrix [data-cell]').dataset.cell")
    browser.run("document.activeElement.click()")
    head = browser.run("document.querySelector('#cell h3').textContent")
    assert browser.run(f"{DATA}.cells['{place}'].predicted") in head
    # a column sorts by its numbers, then the other way
    rows = "[...document.querySelectorAll('[data-sortable] tbody tr')]"
    order = f"{rows}.map(row => Number(row.cells[2].dataset.v))"
    browser.click("[data-sortable] th:nth-child(3) button")
    rising = browser.run(order)
    assert rising == sorted(rising)
    browser.click("[data-sortable] th:nth-child(3) button")
    assert browser.run(order) == rising[::-1]
    browser.check()


def test_without_script_the_numbers_stand_there(browser, many, tmp_path):
    browser.open(many / "report.html", scripts=False)
    assert browser.run("document.getElementById('sure').hidden")
    rows = browser.run("[...document.querySelectorAll('noscript tr')].map(r => r.innerText)")
    assert len(rows) >= 9
    assert any(row.startswith("64.3\xa0%") for row in rows)
    assert browser.run("document.querySelectorAll('button').length") == 0
    browser.check()
    browser.screenshot(tmp_path / "no_script.png")
