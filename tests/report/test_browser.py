"""The page in a real browser: on a phone and a laptop, in light and dark, without a network."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from spark_app.report.page import render
from tests.report.conftest import facts

WIDTHS = (360, 768, 1280)
LEAST_CONTRAST = 4.5  # WCAG 2.2, 1.4.3
LEAST_TEXT = 9.0  # pixels, on a chart on a phone

# The contrast of each text of a drawing with its card, by WCAG's formula.
CONTRASTS = """() => {
  const luminance = (colour) => {
    const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map((part) => part / 255)
      .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  return [...document.querySelectorAll('figure text')].map((text) => {
    const on = luminance(getComputedStyle(text.closest('.card')).backgroundColor);
    const own = luminance(getComputedStyle(text).fill);
    return (Math.max(on, own) + 0.05) / (Math.min(on, own) + 0.05);
  });
}"""
TEXT_SIZES = """() => [...document.querySelectorAll('figure text')].map((text) =>
  parseFloat(getComputedStyle(text).fontSize) * text.getScreenCTM().a)"""
OUTSIDE = """() => [...document.querySelectorAll('figure text')].filter((text) => {
  const own = text.getBoundingClientRect(), card = text.closest('.card').getBoundingClientRect();
  return own.left < card.left || own.right > card.right;
}).map((text) => text.textContent)"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render(facts()), encoding="utf-8")
    return path


@pytest.fixture(params=[(width, scheme) for width in WIDTHS for scheme in ("light", "dark")], ids=str)
def opened(request: pytest.FixtureRequest, browser: Browser, report: Path) -> Iterator[Page]:
    """The report, opened in one width and scheme; any request or console message fails the test."""
    width: int
    scheme: Literal["light", "dark"]
    width, scheme = request.param
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    messages: list[str] = []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    page.goto(report.as_uri())
    yield page
    assert messages == []
    assert [url for url in requested if not url.startswith("data:")] == [report.as_uri()]
    page.close()


def test_it_is_readable_in_every_width_and_scheme(opened: Page) -> None:
    width = opened.viewport_size["width"] if opened.viewport_size else 0
    assert opened.evaluate("document.documentElement.scrollWidth") == width
    opened.evaluate("document.querySelectorAll('details').forEach((details) => { details.open = true; })")
    assert opened.evaluate("document.documentElement.scrollWidth") == width
    contrasts = opened.evaluate(CONTRASTS)
    assert len(contrasts) > 50
    assert min(contrasts) >= LEAST_CONTRAST
    assert min(opened.evaluate(TEXT_SIZES)) >= LEAST_TEXT
    assert opened.evaluate(OUTSIDE) == []


def test_no_rule_of_accessibility_is_broken(opened: Page) -> None:
    results = Axe().run(opened)
    assert len(results.response["passes"]) > 20
    assert results.violations_count == 0, results.generate_report()


def test_dark_is_dark_and_light_is_light(browser: Browser, report: Path) -> None:
    grounds = []
    for scheme in ("light", "dark"):
        page = browser.new_page(color_scheme=scheme)
        page.goto(report.as_uri())
        grounds.append(page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--ground')"))
        bars = page.locator("figure path[style*='fill: var(--accent)']").first
        grounds.append(bars.evaluate("(bar) => getComputedStyle(bar).fill"))
        page.close()
    assert len(set(grounds)) == 4


def test_every_chart_has_a_text_for_screen_readers(browser: Browser, report: Path) -> None:
    page = browser.new_page()
    page.goto(report.as_uri())
    charts = page.get_by_role("img").all()
    assert len(charts) == page.locator("figure").count() == 17
    assert all(len(chart.get_attribute("aria-label") or "") > 40 for chart in charts)
    headings = page.locator("h1, h2, h3, h4").evaluate_all("(all) => all.map((heading) => Number(heading.tagName[1]))")
    assert headings[0] == 1
    assert all(deeper - before <= 1 for before, deeper in itertools.pairwise(headings))
    page.close()


def test_on_paper_it_is_light_and_has_no_navigation(browser: Browser, report: Path) -> None:
    page = browser.new_page(color_scheme="dark")
    page.goto(report.as_uri())
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--ground')").strip() == "#fff"
    assert not page.locator("nav").is_visible()
    page.close()
