"""The folder of the emoji protocol, and the alignment towers, on synthetic art."""

import numpy as np
import pytest
import torch
from PIL import Image

from muse.evaluation.sources import PictureSet, read_prompts, reference_folder
from projects.emoji import alignment, protocol
from projects.emoji.alignment import TowerTraining
from projects.emoji.dataset import EmojiArt, Record

COLOURS = ((200, 30, 30), (30, 160, 60), (40, 60, 200), (230, 170, 20), (120, 40, 140), (20, 150, 170))
NOUNS = ("anchor", "bell", "candle", "drum", "feather", "goblet", "hammer", "ivy", "jar", "key", "ladder", "mirror")
STYLES = {"fluent-3d": "fluent", "fluent-flat": "fluent", "noto": "noto", "twemoji": "twemoji"}
SMALL = protocol.ProtocolOptions(per_category=3, styled=2, real_per_category=2)


@pytest.fixture(scope="module")
def art() -> EmojiArt:
    """Each noun a bar of its own colour and height; noto's bells and drums are held out."""
    records, pictures = [], []
    for style, family in STYLES.items():
        for i, noun in enumerate(NOUNS):
            picture = np.zeros((64, 64, 4), np.uint8)
            picture[4 + i : 60 - i, 12:52] = (*COLOURS[i % len(COLOURS)], 255)
            is_held_out = family == "noto" and noun in ("bell", "drum")
            words = {"group": "Objects", "subgroup": "", "tags": (), "keywords": (), "licence": "MIT", "package": "-@0"}
            record = {"concept": noun, "codepoint": f"{i:x}", "style": style, "family": family}
            records.append(Record(index=len(records), held_out=is_held_out, **record, **words))
            pictures.append(picture)
    return EmojiArt(tuple(records), np.stack(pictures))


def pixels(pictures: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.adaptive_avg_pool2d(pictures, 8).flatten(1)[..., None, None]


def spelled(texts) -> torch.Tensor:
    """Which words a text has."""
    words = [*NOUNS, "3d", "flat", "noto", "twitter"]
    return torch.tensor([[float(word in text.lower()) for word in words] for text in texts]) + 0.01


def test_the_protocol_folder_has_prompts_in_groups_and_real_pictures(art, tmp_path):
    num = protocol.write(art, SMALL, tmp_path)
    prompts = read_prompts(tmp_path)
    assert len(prompts) == num == 5 * 2 * 3 + 2 * 4
    groups = {prompt.group for prompt in prompts}
    assert groups == {"single", "whole prompt", "cardinality", "composition", "style"}
    real = PictureSet.of_folder(reference_folder(tmp_path))
    assert len(real) == 5 * 2 * 2
    assert real.size() == Image.open(real.paths[0]).size
    first = (tmp_path / "prompts.jsonl").read_bytes(), real.fingerprint
    protocol.write(art, SMALL, tmp_path)
    assert ((tmp_path / "prompts.jsonl").read_bytes(), PictureSet.of_folder(real.paths[0].parent).fingerprint) == first


def test_styled_prompts_name_the_same_thing_in_every_style_and_nothing_that_is_held_out(art):
    prompts = list(protocol.styled_prompts(art, SMALL))
    for start in (0, 4):
        four = prompts[start : start + 4]
        assert len({prompt.split(",")[0] for prompt in four}) == 1
        assert len(set(four)) == 4
        assert not any(noun in four[0] for noun in ("bell", "drum"))


def test_more_styled_concepts_than_there_are_is_refused(art):
    with pytest.raises(ValueError, match="concepts are there in every style; 99 were asked for"):
        list(protocol.styled_prompts(art, protocol.ProtocolOptions(styled=99)))


def test_towers_are_trained_on_no_held_out_picture(art):
    held_out = {record.index for record in art.records if record.held_out}
    scenes = alignment.scenes_of(art, alignment.usable(art, held_out=False), TowerTraining())
    assert not held_out & {item for scene in scenes for item in scene.items}
    assert {scene.kind for scene in scenes} > {"single"}


def test_trained_towers_find_captions_better_than_chance(art):
    training = TowerTraining(steps=150, batch=64, dim=32)
    towers = alignment.train(alignment.training_pairs(art, pixels, spelled, training), training)
    again = alignment.train(alignment.training_pairs(art, pixels, spelled, training), training)
    assert all(one.equal(other) for one, other in zip(towers.parameters(), again.parameters(), strict=True))
    seen = alignment.training_pairs(art, pixels, spelled, TowerTraining(scenes=0, captions=1))
    found = alignment.recalls(towers, seen)["captions of pictures"]
    assert found.num == len(alignment.usable(art, held_out=False))
    assert found.first_five.value > 3 * 5 / found.num
