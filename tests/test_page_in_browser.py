"""The pages in a real Chromium: it moves, it tells nobody, and no prompt runs as code."""

import json
import shutil

import numpy as np
import pytest

from tests.test_page import HOSTILE, hostile_rows
from tests.traffic_makers import write_log
from training.report_page import report
from training.watch.drift import Drift
from training.watch.page import write_page
from training.watch.two_sample import Finding

webdriver = pytest.importorskip("selenium.webdriver")
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (BROWSER and DRIVER), reason="no chromium and chromedriver on this machine"
)
WIDTHS = (1280, 960, 390)


@pytest.fixture(scope="module")
def browser(job, tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    page = folder / "report.html"
    report(job.artifact, write_log(folder / "log.parquet", hostile_rows(80)), page)
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                     f"--user-data-dir={folder / 'profile'}"):  # fmt: skip
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    driver.get("about:blank")
    for log in ("performance", "browser"):
        driver.get_log(log)  # what the browser's own first tab did
    driver.get(page.as_uri())
    yield driver
    driver.quit()


def texts(browser, selector):
    found = browser.find_elements("css selector", selector)
    return [element.get_attribute("textContent") for element in found]


def move(browser, to):
    browser.execute_script(
        "const s = document.getElementById('dial'); s.value = arguments[0];"
        "s.dispatchEvent(new Event('input'))",
        to,
    )


def wide(browser, pixels, **more):
    size = {"width": pixels, "height": 900, "deviceScaleFactor": 1, "mobile": pixels < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size | more)


def test_the_page_opens_without_a_word_on_the_console_and_without_the_network(browser):
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events if e["method"].endswith("BeSent")]
    assert [url for url in asked if not url.startswith("data:")] == [browser.current_url]


def test_the_slider_changes_the_numbers_and_the_button_brings_them_back(browser):
    start = texts(browser, "td.live")
    assert all(text.strip() for text in start[:-1])
    ring = browser.find_element("id", "marker").get_attribute("transform")
    move(browser, 0)
    cheap = texts(browser, "td.live")
    assert all(a != b for a, b in zip(start[:5], cheap[:5], strict=True))
    assert cheap[5:7] == ["100.0\u202f%", "0.0\u202f%"]
    assert browser.find_element("id", "marker").get_attribute("transform") != ring
    slider = browser.find_element("id", "dial")
    assert "per 1,000" in slider.get_attribute("aria-valuetext")
    slider.send_keys(webdriver.Keys.END)  # as a person without a mouse moves it
    assert texts(browser, "td.live")[5:7] == ["0.0\u202f%", "100.0\u202f%"]
    browser.find_element("id", "reset").click()
    assert texts(browser, "td.live") == start


def test_prompts_are_hidden_until_asked_for_and_are_only_text(browser):
    assert not browser.find_element("id", "prompt-view").is_displayed()
    assert browser.find_elements("css selector", "#lists button") == []
    browser.find_element("id", "show-prompts").click()
    assert browser.find_element("id", "prompt-view").is_displayed()
    buttons = browser.find_elements("css selector", "#lists button")
    assert len(buttons) >= 3
    seen = set()
    for button in buttons:
        button.click()
        assert button.get_attribute("aria-current") == "true"
        seen.add(texts(browser, "#detail blockquote")[0])
        assert len(browser.find_elements("css selector", "#detail tbody tr")) >= 3
    assert any("<script>window.hacked" in text for text in seen)
    assert len({text for text in HOSTILE for said in seen if said.startswith(text[:20])}) >= 4
    assert browser.execute_script("return typeof window.hacked") == "undefined"
    assert browser.find_elements("css selector", "#prompts img, #prompts script, td script") == []
    browser.find_element("id", "show-prompts").click()
    assert not browser.find_element("id", "prompt-view").is_displayed()


def test_a_right_to_left_override_stays_inside_its_own_cell(browser):
    """A slice's name must not turn around the figures beside it."""
    isolated = browser.execute_script(
        "return [...document.querySelectorAll('.slices tbody th bdi')]"
        ".every(e => getComputedStyle(e).unicodeBidi.includes('isolate'))"
    )
    assert isolated is True
    assert any("\u202e" in text for text in texts(browser, ".slices bdi"))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_the_window_and_the_reader_s_colours(browser, width, scheme):
    colours = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": colours})
    wide(browser, width)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    paper = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    red = int(paper.removeprefix("rgb(").split(",")[0])
    assert (red > 200) if scheme == "light" else (red < 60)


def out_of_sight(browser):
    """Verdicts that end outside of the box in which their table scrolls."""
    return browser.execute_script(
        "return [...document.querySelectorAll('.scroll .verdict')].filter(e =>"
        "e.getBoundingClientRect().right > e.closest('.scroll').getBoundingClientRect().right + 1)"
        ".map(e => e.textContent)"
    )


@pytest.mark.parametrize("width", [1200, 1000])
def test_verdicts_are_seen_without_scrolling(browser, width):
    wide(browser, width)
    assert len(texts(browser, ".scroll .verdict")) > 10
    assert out_of_sight(browser) == []


def test_on_paper_the_bars_beside_the_figures_give_way(browser):
    """With five tiers the table of the trees was 1,300 pixels wide: the whole page shrank to it."""
    width = "return parseFloat(getComputedStyle(document.querySelector('.features .strip')).width)"
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        assert browser.execute_script(width) < 20
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert browser.execute_script(width) > 50


def test_no_table_scrolls_on_a_laptop(browser):
    wide(browser, 1200)
    scrolling = browser.execute_script(
        "return [...document.querySelectorAll('.scroll')]"
        ".filter(e => e.scrollWidth > e.clientWidth).map(e => e.textContent.slice(0, 60))"
    )
    assert scrolling == []


def test_the_policy_of_the_page_runs_no_foreign_script_and_fetches_nothing(browser):
    """Even if an escape failed: a script put into the page does not run. (The last test: it
    leaves words on the console.)"""
    browser.execute_script(
        "const s = document.createElement('script');"
        "try { s.textContent = 'window.hacked = 7'; document.body.append(s) } catch {}"
        "try { document.body.setAttribute('onclick', 'window.hacked = 8') } catch {}"
        "document.body.click()"
    )
    assert browser.execute_script("return typeof window.hacked") == "undefined"
    blocked = browser.execute_async_script(
        "const done = arguments[0];"
        "fetch('data:text/plain,x').then(() => done(false), () => done(true))"
    )
    assert blocked is True


def test_without_scripts_the_answer_is_still_there(browser):
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    browser.get(browser.current_url)
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    assert browser.find_element("css selector", "h1").text
    assert browser.find_element("css selector", ".curve svg").is_displayed()
    assert not browser.find_element("css selector", ".slider").is_displayed()


def test_a_one_sided_log_s_prompts_are_text_too(browser, job, tmp_path):
    rng = np.random.default_rng(1)
    rows = [row | {"propensity": 0.5} for row in hostile_rows(80)]
    served = [pair[int(rng.integers(2))] for pair in zip(rows[::2], rows[1::2], strict=True)]
    report(job.artifact, write_log(tmp_path / "log.parquet", served), tmp_path / "one.html")
    browser.get_log("browser")  # what other tests left there
    browser.get((tmp_path / "one.html").as_uri())
    assert browser.get_log("browser") == []
    assert not browser.find_element("id", "prompt-view").is_displayed()
    browser.find_element("id", "show-prompts").click()
    buttons = browser.find_elements("css selector", "#lists button")
    assert len(buttons) == 12
    buttons[0].click()
    known = texts(browser, "#detail > table td.good, #detail > table td.bad")
    assert known in (["0.00"], ["1.00"])  # of the tier that answered; the other is unknown
    assert browser.execute_script("return typeof window.hacked") == "undefined"
    assert browser.get_log("browser") == []


def test_the_page_of_drift_says_first_what_is_due(browser, job, tmp_path):
    nan = float("nan")
    found = Drift(
        9000,
        2000,
        (
            Finding("prompts", "mean of embeddings", 0.04, "sd", nan, nan, 0.1, 0.3),
            Finding("labels", "score of small", -0.01, "of score", -0.015, -0.005, 0.02, 0.001),
            Finding("calibration", "score − P of small", -0.9, "of score", -1, -0.8, 0.02, 1e-9),
            Finding("models", f"answered by {HOSTILE[0]}", 1.0, "of its calls", nan, nan, 1e-9, 0),
        ),
        ("12 recent requests carry no score",),
    )  # fmt: skip
    page = tmp_path / "drift.html"
    write_page(found, job.artifact, tmp_path / "recent.parquet", page)
    browser.get_log("browser")  # what other tests left there
    browser.get(page.as_uri())
    assert browser.get_log("browser") == []
    assert texts(browser, "h1") == ["Retraining is due: calibration and models changed."]
    assert texts(browser, "tbody th") == ["calibration", "models", "labels", "prompts"]
    verdicts = texts(browser, "td.verdict")
    assert verdicts == ["retrain", "retrain", "shown, too small to matter", "not shown"]
    rows = [row.split("\n")[0] for row in texts(browser, "tbody tr")]
    assert "−90.0\u202f% of score" in rows[0]
    assert "a fact" in rows[1]
    assert HOSTILE[0] in rows[1]
    assert browser.execute_script("return typeof window.hacked") == "undefined"
    assert "12 recent requests carry no score" in texts(browser, "footer li")
    dots = [float(d.get_attribute("cx")) for d in browser.find_elements("css selector", ".dot")]
    assert dots[0] < dots[2] < 75 < dots[3] < dots[1]  # down, a little down, up, all of it
    wide(browser, 1200)
    assert out_of_sight(browser) == []
    for scheme, width in (("light", 1280), ("dark", 390)):
        colours = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": colours})
        wide(browser, width)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.find_elements("css selector", "script") == []
