"""Drawing by batches: kept, shared by ranks, stopped and gone on with."""

import dataclasses

import pytest
import torch
from PIL import Image

from muse.checkpoint import fingerprint_of
from muse.evaluation.drawing import PictureCache, company_of, draw_all
from muse.evaluation.sources import Prompt, requests_for
from muse.images import read_png_text
from muse.models.superres import SuperResTransformer
from muse.models.transformer import MaskedTransformer
from muse.models.vqgan import VQGAN
from muse.processes import Shard
from tests.training.tiny_runs import BASE_CONFIG, SUPERRES_CONFIG, VQGAN_CONFIG

REQUESTS = requests_for([Prompt("a fox"), Prompt("an owl"), Prompt("a cat")], 22, 1, seed=1)


class Drawer:
    """Pictures that depend on the prompt, the seed and, as on a real accelerator, on the size of the batch."""

    def __init__(self, stop_after: int = 10**9):
        self.batches: list[list[str]] = []
        self.stop_after = stop_after

    def __call__(self, prompts: list[str], seeds: list[int]) -> list[Image.Image]:
        if len(self.batches) == self.stop_after:
            raise KeyboardInterrupt
        self.batches.append(prompts)
        drawn = zip(prompts, seeds, strict=True)
        return [Image.new("RGB", (4, 4), (len(prompt), seed % 256, len(prompts))) for prompt, seed in drawn]


def cache_in(folder, **about):
    return PictureCache(folder, about)


def content(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken")
    draw_all(Drawer(), REQUESTS, cache_in(folder), 4, Shard())
    return content(folder)


def test_ranks_together_draw_what_one_draws(unbroken, tmp_path):
    for rank in (2, 1, 0):  # the first rank last: it waits for the others
        draw_all(Drawer(), REQUESTS, cache_in(tmp_path), 4, Shard(rank, 3))
    assert content(tmp_path) == unbroken


@pytest.mark.parametrize("stop_after", [0, 1, 4])
def test_a_run_that_was_stopped_goes_on_and_ends_as_the_unbroken_one(stop_after, unbroken, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        draw_all(Drawer(stop_after), REQUESTS, cache_in(tmp_path), 4, Shard())
    assert len(content(tmp_path)) == 4 * stop_after
    rest = Drawer()
    timing = draw_all(rest, REQUESTS, cache_in(tmp_path), 4, Shard())
    assert len(rest.batches) == len(timing.seconds) == 6 - stop_after
    assert content(tmp_path) == unbroken


def test_a_batch_that_is_there_in_part_is_drawn_as_the_same_batch(unbroken, tmp_path):
    cache = cache_in(tmp_path)
    draw_all(Drawer(), REQUESTS, cache, 4, Shard())
    cache.path_of(REQUESTS[5]).unlink()
    again = Drawer()
    draw_all(again, REQUESTS, cache, 4, Shard())
    assert [len(batch) for batch in again.batches] == [4]
    assert content(tmp_path) == unbroken


def test_nothing_is_drawn_twice(tmp_path):
    draw_all(Drawer(), REQUESTS, cache_in(tmp_path), 4, Shard())
    timing = draw_all(Drawer(stop_after=0), REQUESTS, cache_in(tmp_path), 4, Shard())
    assert timing.as_json()["seconds_a_batch"] is None


def test_other_options_another_prompt_or_another_seed_are_other_pictures(tmp_path):
    one, other = cache_in(tmp_path, steps=4), cache_in(tmp_path, steps=5)
    paths = [one.path_of(REQUESTS[0]), one.path_of(REQUESTS[1]), other.path_of(REQUESTS[0])]
    assert len({*paths, one.path(prompt=REQUESTS[0].prompt.text, seed=0)}) == 4


def test_a_kept_picture_says_its_prompt_and_seed(tmp_path):
    cache = cache_in(tmp_path)
    draw_all(Drawer(), REQUESTS[:1], cache, 4, Shard())
    text = read_png_text(cache.path_of(REQUESTS[0]))
    assert text == {"prompt": REQUESTS[0].prompt.text, "seed": str(REQUESTS[0].seed)}


def test_the_first_rank_gives_up_on_others_that_never_come(tmp_path):
    with pytest.raises(TimeoutError, match=r"pictures of other ranks are missing .* run the command again"):
        draw_all(Drawer(), REQUESTS, cache_in(tmp_path), 4, Shard(0, 2), patience=0.05)


def test_a_fingerprint_changes_with_any_weight_and_with_its_type():
    layer = torch.nn.Linear(3, 3)
    before = fingerprint_of([layer])
    assert fingerprint_of([layer]) == before
    with torch.no_grad():
        layer.bias[1] += 1
    assert fingerprint_of([layer]) != before
    assert fingerprint_of([layer.bfloat16()]) != fingerprint_of([layer.float()])


def test_a_gpus_pictures_are_kept_by_their_batch_and_a_processors_in_any(tmp_path):
    processor, gpu = torch.device("cpu"), torch.device("cuda:1")

    def path(device, batch):
        return cache_in(tmp_path, model="m", **company_of(device, batch)).path_of(REQUESTS[0])

    assert path(processor, 4) == path(processor, 8)
    assert len({path(processor, 4), path(gpu, 4), path(gpu, 8)}) == 3
    assert path(gpu, 4) == path(torch.device("cuda:0"), 4)


@pytest.mark.parametrize(
    ("network", "config", "change"),
    [
        (VQGAN, VQGAN_CONFIG, {"decoder_padding": "replicate"}),
        (MaskedTransformer, BASE_CONFIG, {"heads": 4}),
        (SuperResTransformer, SUPERRES_CONFIG, {"attention": "full"}),
    ],
)
def test_a_fingerprint_changes_with_a_config_of_the_same_weights(network, config, change):
    one, again, other = (network(each) for each in (config, config, dataclasses.replace(config, **change)))
    for each in (again, other):
        each.load_state_dict(one.state_dict())
    assert fingerprint_of([one]) == fingerprint_of([again]) != fingerprint_of([other])
