"""The page on a free port of loopback."""

import os

import pytest

from muse.apps.web.options import Web
from muse.apps.web.studio import Studio


@pytest.fixture(scope="module")
def url(tiny_muse):
    """The address of a page that draws with a tiny model."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    from muse.apps.web.page import build, launch_options

    studio = Studio(tiny_muse)
    blocks = build(studio)
    options = launch_options(Web()) | {"server_port": None, "prevent_thread_lock": True, "quiet": True}
    _, url, _ = blocks.launch(**options)
    yield url
    blocks.close()
    studio.close()
