"""Pictures of the page of `muse web`, taken in Debian's Chromium.

    python -m docs.screenshots

Needs `pip install muse-t2i[web] playwright` and Debian's chromium.
"""

import os
import tempfile
from pathlib import Path

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before gradio is imported

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks.chromium import launch
from muse.apps.web.options import Web
from muse.apps.web.page import build, launch_options
from muse.apps.web.studio import Studio
from muse.pipeline import Muse

FOLDER = Path(__file__).parent
PROMPT, EDIT = "a red apple, 3d style", "a green apple, 3d style"
DESK, PHONE = (1280, 900), (390, 844)
PATIENCE = 60_000


def visit(browser: Browser, url: str, size: tuple[int, int], scheme: str = "light") -> Page:
    """A visitor with a screen of so many pixels."""
    page = browser.new_page(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)  # pyright: ignore
    page.set_default_timeout(PATIENCE)
    page.goto(url)
    page.get_by_label("Prompt", exact=True).wait_for()
    return page


def draw(page: Page, num: int) -> None:
    """Ask for some pictures with seeds from 1 on, and wait for them."""
    page.get_by_label("Prompt", exact=True).fill(PROMPT)
    page.get_by_label("Another seed each time").first.uncheck()
    page.get_by_label("Seed", exact=True).first.fill("1")
    page.get_by_label("number input for How many pictures").first.fill(str(num))
    page.keyboard.press("Tab")
    page.get_by_role("button", name="Draw", exact=True).click()
    page.locator(f"img[alt='{PROMPT} (seed {num})']").first.wait_for()
    page.wait_for_timeout(500)


def edit(page: Page, picture: Path) -> None:
    """Paint over the middle of a picture, and fill it."""
    page.get_by_role("tab", name="Edit").click()
    canvas = page.locator("canvas:visible").last
    canvas.wait_for()
    page.wait_for_timeout(1500)
    page.locator("input[type=file][accept*=image]").set_input_files(picture)
    page.wait_for_timeout(1500)
    box = canvas.bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x - 60, y)
    page.mouse.down()
    for step in range(61):
        page.mouse.move(x - 60 + 2 * step, y + 40 * (step % 2))
    page.mouse.up()
    page.get_by_label("Prompt of the edit", exact=True).fill(EDIT)
    page.get_by_role("button", name="Edit", exact=True).click()
    page.locator(f"img[alt^='{EDIT} (seed']").first.wait_for()
    page.wait_for_timeout(500)


def save(page: Page, name: str, *, whole: bool = False) -> None:
    """Keep what is seen, in 256 colours."""
    path = FOLDER / name
    page.screenshot(path=path, full_page=whole)
    Image.open(path).convert("RGB").quantize(256).save(path, optimize=True)
    page.close()


def main() -> None:
    """Take all four."""
    muse = Muse.from_pretrained("emoji")
    studio = Studio(muse)
    blocks = build(studio)
    options = launch_options(Web()) | {"server_port": None, "prevent_thread_lock": True, "quiet": True}
    _, url, _ = blocks.launch(**options)
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = launch(playwright)
        for name, size, scheme in (
            ("page-draw.png", DESK, "light"),
            ("page-dark.png", DESK, "dark"),
            ("page-phone.png", PHONE, "light"),
        ):
            page = visit(browser, url, size, scheme)
            draw(page, 4 if size == DESK else 1)
            if size == DESK:
                page.evaluate("scrollTo(0, 0)")
            save(page, name)
        picture = Path(folder) / "apple.png"
        muse.generate([PROMPT], [1])[0].resize((384, 384)).save(picture)
        page = visit(browser, url, DESK)
        edit(page, picture)
        save(page, "page-edit.png", whole=True)
        browser.close()
    blocks.close()
    studio.close()


if __name__ == "__main__":
    main()
