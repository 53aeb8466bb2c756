"""The local page in a real browser, beside a real worker with its own broker and store."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser import Browser, host_of
from tests.servers import free_port, wait_until
from tests.system.conftest import FAILED
from tests.system.line import Installation, Oracle, now_ms, topic

pytestmark = pytest.mark.system

DASHBOARDS = ("Safety", "Fleet", "Device", "Usage", "Pipeline")
DEVICES = ("example-1", "example-2")
DANGEROUS_UA = 900.0


class Line:
    """A worker, and one device's connection for each device."""

    def __init__(self, installation: Installation) -> None:
        self.installation = installation
        passwords = installation.answer("credentials", "create", *DEVICES)
        port = int((installation.data / "credentials" / "broker.port").read_text())
        self._oracles = {d: Oracle(port, version=4, client_id=d, user=d, password=passwords[d]) for d in DEVICES}
        self._sent = dict.fromkeys(DEVICES, 0)
        for oracle in self._oracles.values():
            wait_until(lambda o=oracle: self._admitted(o), 20, "the broker to know the devices")

    @staticmethod
    def _admitted(oracle: Oracle) -> bool:
        try:
            oracle.__enter__()
        except (OSError, pytest.fail.Exception):
            oracle.__exit__()
        return oracle.connected

    @property
    def address(self) -> str:
        return self.installation.address

    def publish(self, device: str, **said: Any) -> None:
        self._oracles[device].publish(device, self._sent[device], **said)
        self._sent[device] += 1
        self._oracles[device].wait_acked(self._sent[device])

    def refused(self, device: str, payload: bytes) -> None:
        """Publish what is no message, and wait until it is set aside."""
        before = self.installation.ledger()["quarantined"]
        self._oracles[device].publish_raw(topic(device), payload)
        self.installation.wait_for(lambda seen: seen["ledger"]["quarantined"] > before, 10, "it to be refused")

    def close(self) -> None:
        for oracle in self._oracles.values():
            oracle.__exit__()


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    """Two devices that have each told a minute of harmless current."""
    with Installation(tmp_path_factory.mktemp("browser-line"), mqtt_port=0, http_port=free_port()) as running:
        line = Line(running)
        began = now_ms() - 60_000
        for n in range(30):
            for device in DEVICES:
                line.publish(device, ts_ms=began + 2_000 * n, i_peak_ua=200.0 + n)
        running.wait_settled(60)
        yield line
        line.close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


@pytest.fixture
def page(browser: Browser, line: Line, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Browser]:
    """The page as somebody finds it who opens it first; what it looked like when a test failed is kept."""
    browser.resize(1440, 900)
    browser.prefer("light")
    browser.open(f"{line.address}/")
    browser.run("localStorage.clear()")
    visit(browser, line, "")
    yield browser
    if request.node.stash.get(FAILED, False):
        print(f"what the page looked like: {browser.screenshot(tmp_path / 'page.png')}")


def visit(page: Browser, line: Line, where: str) -> None:
    """Open an address anew, and wait until its panels are filled."""
    page.open("about:blank")
    page.open(f"{line.address}/#/{where}")
    settled(page)


def settled(page: Browser) -> None:
    page.wait(
        lambda: page.run("return document.querySelectorAll('.board-panel').length > 0 && !document.querySelector('.board-panel[data-waiting]')"),
        "all panels to be filled",
    )


def panel(page: Browser, title: str) -> str:
    """What a panel shows, as text."""
    return page.run(
        "return [...document.querySelectorAll('.board-panel')].find((p) => p.querySelector('h3').textContent === arguments[0])?.innerText ?? ''", title
    )


def dashboard_of(page: Browser, device: str) -> None:
    """Wait until the dashboard is the one of this device, and its panels are filled."""
    page.wait(lambda: device == page.text("h1"), f"the dashboard of {device}")
    settled(page)


def hash_of(page: Browser) -> str:
    return page.run("return location.hash")


def test_each_dashboard_loads_and_nothing_is_complained_of(page: Browser, line: Line) -> None:
    page.errors()
    assert DASHBOARDS == tuple(re.sub(r"\s*\d+$", "", text).strip() for text in page.texts("#tabs a"))
    for name in DASHBOARDS:
        visit(page, line, f"device/{DEVICES[0]}" if name == "Device" else name.lower())
        page.wait(lambda name=name: (DEVICES[0] if name == "Device" else name) == page.text("h1"), name)
        assert [] == page.texts(".panel-said[data-error]:not([hidden])"), name
    assert [] == page.errors()


def test_a_panel_shows_what_grafana_shows_with_its_title_unit_and_meaning(page: Browser, line: Line) -> None:
    definition = line.installation.get("/api/dashboards/microcurrent-device")
    line.publish(DEVICES[0], i_peak_ua=229.0)  # what is older than a minute or two is shown as a value no more
    visit(page, line, f"device/{DEVICES[0]}?range=15m")
    titles = [p["title"] for section in definition["sections"] for p in section["panels"]]
    assert titles == page.texts(".board-panel h3")
    page.wait(lambda: "229 µA" in panel(page, "Current").replace("\u202f", ""), "the last reading")


def test_a_reading_that_is_published_shows_without_a_reload(page: Browser, line: Line) -> None:
    visit(page, line, f"device/{DEVICES[1]}?range=5m")
    page.run("window.same = true")
    line.publish(DEVICES[1], i_peak_ua=312.0, i_set_ua=310.0)
    page.wait(lambda: "312 µA" in panel(page, "Current"), "the new reading in the panel")
    page.wait(lambda: "312 µA" in page.text("#device-facts"), "the new reading in the facts")
    assert page.run("return window.same") is True


def test_dashboard_device_and_time_are_chosen_and_back_undoes_it(page: Browser, line: Line) -> None:
    page.click("#tabs a[data-route=device]")
    page.click("#choice-single")
    page.press(*DEVICES[1], "Enter")
    dashboard_of(page, DEVICES[1])
    page.click("#ranges [data-range='24h']")
    page.wait(lambda: f"#/device/{DEVICES[1]}?range=24h" == hash_of(page), "the range in the address")
    page.click("#earlier")
    page.wait(lambda: "from=" in hash_of(page), "a window that stands still")
    page.wait(lambda: page.run("return document.getElementById('follow').checked") is False, "the window to follow no more")
    page.back()
    page.wait(lambda: page.run("return document.getElementById('follow').checked"), "the window to follow again")
    page.click("#tabs a[data-route=fleet]")
    page.wait(lambda: "Fleet" == page.text("h1"), "the fleet")
    settled(page)
    assert "range=24h" in hash_of(page)
    page.click("#choice-model")
    page.press("toneduo", "Enter", "Escape")
    page.wait(lambda: "model=toneduo-400" in hash_of(page), "the model in the address")
    page.wait(lambda: "2 devices" in page.text("#fleet-count"), "both devices")
    page.run("location.hash = '#/fleet?model=none-such'")
    page.wait(lambda: "0 of 2" in page.text("#fleet-count"), "no device of that model")


def test_a_danger_appears_and_is_acknowledged_by_name(page: Browser, line: Line) -> None:
    visit(page, line, "safety")
    page.wait(lambda: "None is open or waits" in page.text("#safety-none"), "no alert")
    line.publish(DEVICES[0], i_peak_ua=DANGEROUS_UA)
    page.wait(lambda: "overcurrent-peak" in page.text("#safety-alerts"), "the alert")
    page.wait(lambda: "1" == page.text("#nav-alerts"), "its count")
    page.wait(lambda: "overcurrent-peak" in page.run("return document.getElementById('announce').textContent"), "it to be announced")
    page.click("#safety-alerts .button")
    page.click("#act-by")
    page.press("Dr. Ohm")
    page.click("#act-words")
    page.press("stopped, and feels well")
    page.click("#act-send")
    page.wait(lambda: "Acknowledged by Dr. Ohm" in page.text("#safety-alerts") or "None is open" in page.text("#safety-none"), "the acknowledgement")
    (alert,) = line.installation.get("/api/alerts?rule=overcurrent-peak")["alerts"]
    assert ("Dr. Ohm", "stopped, and feels well") == (alert["acknowledged"]["by"], alert["acknowledged"]["note"])
    page.open(f"{line.address}/#/alerts/{alert['id']}")
    page.wait(lambda: "stopped, and feels well" in page.text("#alert-detail"), "the alert and its history")
    page.click("#alert-detail .detail-acts a.button")
    dashboard_of(page, DEVICES[0])
    shown = {name: int(value) for name, value in re.findall(r"(from|to)=(\d+)", hash_of(page))}
    assert shown["from"] < alert["opened_ms"] - 200_000 and shown["to"] > alert["opened_ms"] + 200_000
    page.wait(lambda: page.run("return document.querySelectorAll('.marker').length") >= 1, "the alert in a chart")


def test_a_worker_that_is_gone_is_seen_to_be_gone_and_comes_back(page: Browser, line: Line) -> None:
    visit(page, line, "fleet")
    line.installation.leave_only_the_broker()
    page.wait(lambda: "Connection to the worker lost" in page.text("#conditions"), "the page to say so")
    page.wait(lambda: "(lost)" in page.run("return document.title"), "the title to say so")
    page.wait(lambda: "none" != page.run("return getComputedStyle(document.querySelector('main')).filter"), "the page to be grey")
    healths = "return [...document.querySelectorAll('#fleet-rows tr')].map((row) => row.dataset.health)"
    page.wait(lambda: {"silent"} == set(page.run(healths)), "nobody to be called well")
    line.installation.thaw()
    page.wait(lambda: not page.text("#conditions") and page.text("#link-word") == "Live", "the page to go on", 30)
    line.publish(DEVICES[1], i_peak_ua=298.0)
    page.wait(lambda: "298 µA" in page.text("#fleet-rows"), "what came after it")
    page.errors()


def reach(page: Browser, selector: str, most: int = 60) -> None:
    """By Tab alone, and seen to be reached."""
    for _ in range(most):
        page.press("Tab")
        if page.run("return document.activeElement.matches(arguments[0])", selector):
            style = page.run("const s = getComputedStyle(document.activeElement); return [s.outlineStyle, s.outlineWidth]")
            assert "none" != style[0] and "0px" != style[1], selector
            return
    pytest.fail(f"{selector} is not reached by Tab")


def test_a_refused_message_is_looked_at_replayed_and_discarded_by_keyboard_and_does_no_harm(page: Browser, line: Line) -> None:
    hostile = b"<img src=x onerror=\"document.title='harm'\"><script>document.title='harm'</script>\x1b[2J"
    line.refused(DEVICES[0], hostile)
    visit(page, line, "pipeline")
    page.wait(lambda: "json_syntax" in page.text("#entries"), "the refused message")
    page.run("document.getElementById('entries-device').focus()")
    page.press(*"nobody")
    page.wait(lambda: "No refused message matches." == page.text("#no-entries"), "none of that device")
    page.run("const field = document.getElementById('entries-device'); field.value = arguments[0]; field.dispatchEvent(new Event('input'))", DEVICES[0])
    page.wait(lambda: "json_syntax" in page.text("#entries") and "1 message" == page.text("#entries-count"), "those of this device")
    reach(page, "#entries .button")
    page.press("Enter")
    page.wait(lambda: "<img src=x" in page.text("#payload-text") and r"\x1b[2J" in page.text("#payload-text"), "its bytes, escaped")
    assert 0 == page.run("return document.querySelectorAll('main img[src=x], dialog img[src=x], main script').length")
    reach(page, "#payload-replay")
    page.press("Enter")
    page.wait(lambda: "would be refused again: json syntax" in page.text("#refused-what"), "what would come of it")
    page.press(*"Ada")
    reach(page, "#refused-send")
    page.press("Enter")
    page.wait(lambda: "Sent through the line again by Ada" in page.text("#payload-history") and "Refused again" in page.text("#payload-history"), "its history")
    reach(page, "#payload-discard")
    page.press("Enter", *"noise")
    reach(page, "#refused-send")
    page.press("Enter")
    page.wait(lambda: "discarded by Ada" in page.text("#payload-facts") and "noise" in page.text("#payload-history"), "its end")
    page.press("Escape")
    page.wait(lambda: "No refused message matches." == page.text("#no-entries"), "none that is open")
    assert "harm" not in page.run("return document.title")
    assert [] == page.errors()


def test_the_keyboard_alone_is_enough(page: Browser, line: Line) -> None:
    visit(page, line, "fleet")

    def tab_to(selector: str) -> None:
        reach(page, selector)

    tab_to(".skip")
    tab_to("#tabs a[data-route=device]")
    page.press("Enter")
    page.wait(lambda: hash_of(page).startswith("#/device"), "the dashboard")
    tab_to("#choice-single")
    assert "true" == page.run("return document.activeElement.getAttribute('aria-expanded')")
    page.press("Down", "Enter")
    page.wait(lambda: page.text("h1") in DEVICES, "a device")
    settled(page)
    page.press("Down", "Escape")
    assert "false" == page.run("return document.activeElement.getAttribute('aria-expanded')")
    tab_to("#ranges [data-range='15m']")
    page.press("Enter")
    page.wait(lambda: "range=15m" in hash_of(page), "the range")
    tab_to("#span")
    page.press("Enter")
    assert page.run("return document.getElementById('span-dialog').open") is True
    page.press("Escape")
    assert page.run("return document.getElementById('span-dialog').open") is False
    tab_to(".about")
    page.press("Enter")
    assert page.run("return document.activeElement.getAttribute('aria-expanded')") == "true"
    page.press("Escape")
    assert page.run("return document.activeElement.getAttribute('aria-expanded')") == "false"
    tab_to(".plot")
    page.press("Left", "Left")
    assert page.run("return document.activeElement.querySelector('.u-cursor-x') !== null")


def test_everything_that_can_be_used_has_a_name(page: Browser, line: Line) -> None:
    nameless = (
        "return [...document.querySelectorAll('a[href], button, input, select, textarea, [role=img], [tabindex=\"0\"]')].filter((n) => n.checkVisibility()"
        " && !(n.getAttribute('aria-label') || n.innerText?.trim() || n.labels?.length || n.getAttribute('aria-labelledby')))"
        ".map((n) => n.outerHTML.slice(0, 120))"
    )
    for name in ("safety", "fleet", f"device/{DEVICES[0]}", "usage", "pipeline"):
        visit(page, line, name)
        assert [] == page.run(nameless), name


def test_a_narrow_page_is_not_wider_than_the_screen(page: Browser, line: Line) -> None:
    for name in ("safety", "alerts", "fleet", f"device/{DEVICES[0]}", "usage", "pipeline"):
        page.open("about:blank")
        page.open(f"{line.address}/#/{name}")
        page.wait(lambda: page.run("return document.querySelector('#board-title').checkVisibility() || document.querySelector('#h-alerts').checkVisibility()"), name)
        if name != "alerts":
            settled(page)
        for width in (375, 768, 1100):
            page.resize(width, 812)
            page.wait(lambda w=width: w >= page.run("return document.documentElement.scrollWidth"), f"{name} to fit into {width} px")


CONTRASTS = """
const channels = (text) => { const m = text.match(/rgba?\\(([^)]+)\\)/); return m ? m[1].split(/[ ,/]+/).map(Number) : [0, 0, 0, 0]; };
const light = ([r, g, b]) => { const f = (v) => { v /= 255; return v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; }; return .2126 * f(r) + .7152 * f(g) + .0722 * f(b); };
const ground = (node) => { for (; node; node = node.parentElement) { const c = channels(getComputedStyle(node).backgroundColor); if (c.length === 3 || c[3] === 1) return c; } return [255, 255, 255]; };
return [...document.querySelectorAll(arguments[0])].filter((n) => n.checkVisibility() && n.innerText.trim()).map((n) => {
  const [a, b] = [light(channels(getComputedStyle(n).color)), light(ground(n))];
  return [(Math.max(a, b) + .05) / (Math.min(a, b) + .05), n.className + ': ' + n.innerText.slice(0, 30)];
}).filter(([ratio]) => ratio < 4.5)
"""


def test_light_and_dark_differ_and_both_can_be_read(page: Browser, line: Line) -> None:
    grounds = set()
    for name in ("safety", "fleet", f"device/{DEVICES[0]}", "pipeline"):
        visit(page, line, name)
        for scheme in ("light", "dark"):
            page.prefer(scheme)
            grounds.add(page.run("return getComputedStyle(document.body).backgroundColor"))
            assert [] == page.run(CONTRASTS, "h1, h2, h3, p, dt, dd span, td, th button, .tabs a, .button, label, .key, .tile span"), (scheme, name)
    assert 2 == len(grounds)
    page.click("#theme")
    assert "light" == page.run("return document.documentElement.dataset.theme")
    visit(page, line, "fleet")
    assert "light" == page.run("return document.documentElement.dataset.theme"), "the choice is kept"


def test_nothing_is_asked_of_any_other_machine(page: Browser, line: Line) -> None:
    for name in ("safety", "alerts", f"device/{DEVICES[0]}"):
        page.open(f"{line.address}/#/{name}")
        page.wait(lambda: page.text("#link-word") == "Live", "the live stream")
    asked = [url for url in page.requests() if not url.startswith(("about:", "data:", "chrome://"))]
    assert len(asked) > 50
    assert {host_of(line.address)} == {host_of(url) for url in asked}
