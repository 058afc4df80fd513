"""Shapes in signatures are checked while tests run."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from jaxtyping import install_import_hook

install_import_hook("muse", "typing_checker.check")
torch.set_num_threads(1)  # the tests run side by side
