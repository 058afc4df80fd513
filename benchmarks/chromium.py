"""Debian's Chromium without a screen, for whoever looks at the page: a benchmark, the tests, the documentation."""

import shutil

from playwright.sync_api import Browser, Playwright

ALONE = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
"""As root, and asking no other host by itself."""


def launch(playwright: Playwright) -> Browser:
    """A browser.
    Raises SystemExit, in one sentence, if there is none on this machine."""
    found = filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome")))
    if (program := next(found, None)) is None:
        raise SystemExit("there is no Chromium; install Debian's package chromium")
    return playwright.chromium.launch(executable_path=program, args=list(ALONE))
