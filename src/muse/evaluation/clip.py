"""CLIP score: how well a picture fits its prompt, told by CLIP.
CLIPScore (arXiv:2104.08718), in per cent as most papers write it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from muse.checkpoint import CheckpointError, first_line
from muse.evaluation.metrics import PerPicture
from muse.evaluation.networks import BATCH, folder_of, hash_of_folder
from muse.models.text_encoder import check_loaded, quietly
from muse.precision import default_device, exact_convolutions

HUB_NAME = "openai/clip-vit-large-patch14"
"""What most papers mean by CLIP score."""


class ClipScorer:
    """A CLIP of transformers and what it takes to prepare pictures and words for it."""

    def __init__(self, network: Any, processor: Any, tokenizer: Any, weights: str):
        self.network, self.processor, self.tokenizer, self.weights = network.eval(), processor, tokenizer, weights

    @classmethod
    def load(cls, where: str | Path = HUB_NAME, device: torch.device | str | None = None) -> "ClipScorer":
        """A folder, or a name on the hub; on the device where models are put, if none is given.
        Raises MissingWeights if it cannot be had, CheckpointError if it is no CLIP."""
        from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel

        folder = folder_of(str(where), "--clip")
        try:
            with quietly():
                loaded: Any = CLIPModel.from_pretrained(
                    folder, local_files_only=True, use_safetensors=True, dtype=torch.float32, output_loading_info=True
                )
                network, report = loaded
                check_loaded(network, report["missing_keys"], report["unexpected_keys"])
                processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True)
                tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except Exception as error:  # a damaged folder fails in as many ways as transformers has file formats
            raise CheckpointError(f"{folder} holds no CLIP of transformers ({first_line(error)})") from error
        return cls(
            network.to(device or default_device()), processor, tokenizer, f"{Path(where).name} {hash_of_folder(folder)}"
        )

    @property
    def resize(self) -> str:
        return f"by {type(self.processor).__name__}"

    @torch.no_grad()
    @exact_convolutions()
    def __call__(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> PerPicture:
        """100 x the cosine of each picture and its own prompt, at least 0; of long prompts the first 77 sub-words."""
        parts = [slice(start, start + BATCH) for start in range(0, len(images), BATCH)]
        return torch.cat([self.scores(images[part], prompts[part]) for part in parts])

    def scores(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> PerPicture:
        longest = self.network.config.text_config.max_position_embeddings
        words = self.tokenizer(
            list(prompts), padding=True, truncation=True, max_length=longest, return_tensors="pt", verbose=False
        )
        pixels = self.processor(images=list(images), return_tensors="pt")["pixel_values"]
        device = self.network.device
        seen = self.network(
            input_ids=words["input_ids"].to(device),
            attention_mask=words["attention_mask"].to(device),
            pixel_values=pixels.to(device),
        )
        return 100 * (seen.image_embeds * seen.text_embeds).sum(-1).clamp(min=0).float().cpu()
