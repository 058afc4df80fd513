"""Seconds from `muse web` to the page and to its first picture, in a real browser without a screen.

    python -m benchmarks.page

Needs Debian's chromium and `pip install playwright`. The browser is started before the clock is.
"""

import subprocess
import sys
import time
from dataclasses import dataclass
from urllib.error import URLError
from urllib.request import urlopen

import tyro
from playwright.sync_api import Browser, sync_playwright

from benchmarks.chromium import launch
from benchmarks.measure import free_port, report

LONGEST = 120
"""Seconds to wait for a page, and for a picture."""


@dataclass(frozen=True)
class Page:
    """What is typed, and how often the page is started."""

    prompt: str = "a red apple, 3d style"
    rounds: int = 3
    model: str = "emoji"


def wait_for(url: str) -> None:
    """Until somebody answers.
    Raises TimeoutError if nobody does."""
    end = time.perf_counter() + LONGEST
    while time.perf_counter() < end:
        try:
            urlopen(url, timeout=LONGEST).close()
            return
        except (URLError, ConnectionError):
            time.sleep(0.02)
    raise TimeoutError(f"{url} did not answer within {LONGEST} s")


def once(browser: Browser, what: Page) -> tuple[float, float, float]:
    """Seconds until the server answers, until the prompt can be typed, and until the picture stands there."""
    url = f"http://127.0.0.1:{(port := free_port())}/"
    started = time.perf_counter()
    command = [sys.executable, "-m", "muse", "web", "--port", str(port), "--model", what.model]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        wait_for(url)
        seconds = [time.perf_counter() - started]
        page = browser.new_page()
        page.set_default_timeout(1000 * LONGEST)
        page.goto(url)
        page.get_by_label("Prompt", exact=True).fill(what.prompt)
        seconds.append(time.perf_counter() - started)
        page.get_by_role("button", name="Draw", exact=True).click()
        page.locator(f"img[alt^='{what.prompt} (seed']").first.wait_for()
        seconds.append(time.perf_counter() - started)
        page.close()
        return seconds[0], seconds[1], seconds[2]
    finally:
        server.terminate()
        server.wait()


def main(what: Page) -> None:
    """Measure and print."""
    with sync_playwright() as playwright:
        browser = launch(playwright)
        rows = [tuple(f"{each:.1f}" for each in once(browser, what)) for _ in range(what.rounds)]
        browser.close()
    report(("server", "prompt typed", "first picture"), rows)


if __name__ == "__main__":
    main(tyro.cli(Page))
