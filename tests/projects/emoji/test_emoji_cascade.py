"""The commands of the recipe, one after the other on a small scale: each leaves what the next one needs."""

import dataclasses
import json
import shutil
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from muse.checkpoint import load_module
from muse.models.discriminator import DiscriminatorConfig
from muse.models.superres import SuperResConfig
from muse.models.transformer import MaskedTransformer, TransformerConfig
from muse.models.vqgan import VQGAN, VQGANConfig
from muse.pipeline import Muse
from muse.training.perceptual import PerceptualLoss
from muse.training.redraw import Redraw
from projects.emoji import cascade_bench, dataset, recipe, train
from projects.emoji.bench import BenchOptions
from projects.emoji.tokens import CacheOptions

pytestmark = pytest.mark.xdist_group("emoji cascade")  # one worker trains once what they share

TINY_VQGAN = VQGANConfig(channels=(4,), patch=8, blocks=1, decoder_blocks=1, num_codes=16, code_dim=4, norm_groups=2)
SIZE: dict[str, Any] = {"dim": 16, "heads": 2, "mlp_dim": 32, "text_dim": 32, "depth": 1}
MODELS = {
    "vqgan": TINY_VQGAN,
    "vqgan_superres": dataclasses.replace(TINY_VQGAN, num_codes=24),
    "base": TransformerConfig(num_codes=16, height=8, width=8, **SIZE),
    "superres": SuperResConfig(
        num_codes=24,
        low_num_codes=16,
        height=16,
        width=16,
        low_height=8,
        low_width=8,
        low_depth=1,
        block=4,
        aligned=True,
        upsampled_dim=4,
        **SIZE,
    ),
}


def save_art(folder, records, pictures):
    folder.mkdir(parents=True)
    np.save(folder / "pictures.npy", pictures)
    (folder / "records.jsonl").write_text("".join(json.dumps(dataclasses.asdict(record)) + "\n" for record in records))
    (folder / "manifest.json").write_text("{}")


@pytest.fixture(scope="module")
def begun(art, tiny_t5, tmp_path_factory):
    """Two small data sets, networks of random weights, the recipe with tiny parts and two steps each, and a base that
    was trained by it; leave them as they are."""
    places = recipe.Places(tmp_path_factory.mktemp("begun"), "half")
    records = [dataclasses.replace(record, held_out=record.index % 4 == 0) for record in art.records]
    save_art(places.folder / "data", records, art.pictures)
    save_art(places.folder / "data-256", records, art.pictures.repeat(2, 1).repeat(2, 2))
    (places.folder / "meanings.json").write_text('{"cat": ["feline mammal"]}')
    tiny_t5.save(places.text_encoder)
    places.perceptual.parent.mkdir(parents=True)
    torch.manual_seed(0)
    save_file(PerceptualLoss().state_dict(), places.perceptual)
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch)
        train.vqgan(places)
        train.base(places, caption_mix=0.5, meanings=True)
        yield places


@pytest.fixture(scope="module")
def finished(begun, tmp_path_factory):
    """The same with super-resolution, and with the decoders of both sizes trained on; leave it as it is."""
    places = copy_of(begun, tmp_path_factory.mktemp("finished"))
    for command in (train.decoder_low, train.vqgan_superres, train.superres, train.decoder):
        command(places)
    return places


def copy_of(places, folder):
    return recipe.Places(shutil.copytree(places.folder, folder / "emoji"), "half")


def make_small(patch):
    """Give the recipe tiny networks and two steps of each."""
    patch.setattr("projects.emoji.networks.prepare", lambda folder: None)
    for name in ("vqgan", "base", "vqgan_superres", "superres", "decoder", "decoder_low", "decoder_drawn"):
        patch.setattr(recipe, name, made_tiny(name, getattr(recipe, name)))
    small = {"VQGAN_BATCH": 2, "LARGE_BATCH": 2, "BASE_BATCH": 4, "SUPERRES_BATCH": 4}
    few = CacheOptions(singles_per_picture=1, compositions=4)
    patch.setitem(recipe.SCALES, "half", dataclasses.replace(recipe.SCALES["half"], tokens=few, paired=few))
    prompts = {"WATCHED_PROMPTS": ["a red apple", "a dog"]}
    quick = {name: dataclasses.replace(getattr(recipe, name), steps=2) for name in ("DEFAULTS", "SUPERRES_DEFAULTS")}
    for name, value in (small | prompts | quick).items():
        patch.setattr(recipe, name, value)


def made_tiny(name, run):
    """A run of the recipe with a tiny network and two steps."""
    sizes: dict[str, Any] = {"decoder_channels": (6,), "decoder_blocks": 2}
    if name in MODELS:
        sizes = {"model": MODELS[name]}
    elif name == "decoder_low":
        sizes = {"decoder_blocks": 1}
    save_every = 1 if name == "decoder_drawn" else 2
    starts = {"discriminator_from": 1, "adversarial_from": 1, "discriminator": DiscriminatorConfig(4, 1, 2)}

    def tiny(places):
        training = run(places)
        codes = {"quantize_from": 1} if hasattr(training, "quantize_from") else {}
        quick = {"steps": 2, "warmup": 0, "save_every": save_every, "workers": 0, "precision": "32-true"}
        engine = dataclasses.replace(training.engine, **quick)
        return dataclasses.replace(
            training, engine=engine, **sizes, **codes, **({} if hasattr(training, "caption_drop") else starts)
        )

    return tiny


def test_the_commands_make_a_base_then_a_cascade_then_its_larger_decoder(begun, finished, tmp_path):
    assert Muse.from_pretrained(begun.model, "cpu").size == (64, 64)
    cascade = Muse.from_pretrained(finished.model, "cpu")
    assert (cascade.low_size, cascade.size) == ((64, 64), (128, 128))
    assert cascade.superres_defaults == recipe.SUPERRES_DEFAULTS
    assert (finished.superres.parent / "drawn-000002.png").is_file()

    before, after = (load_module(VQGAN, VQGANConfig, each) for each in (finished.vqgan_superres, finished.decoder))
    assert cascade.vqgan_superres is not None
    assert before.fingerprint() == after.fingerprint() == cascade.vqgan_superres.fingerprint()
    assert cascade.vqgan_superres.config == after.config != before.config

    # The ablation has a folder and a model of its own, drawn with the larger decoder.
    places = copy_of(finished, tmp_path)
    train.superres(places, run="superres-clean", low_corruption=0.0)
    clean = Muse.from_pretrained(places.runs / "model-superres-clean", "cpu")
    assert clean.vqgan_superres is not None
    assert clean.vqgan_superres.config == after.config
    assert list((places.runs / "superres-clean" / "checkpoints").glob("step-*"))


def test_the_last_trainings_of_both_decoders_change_no_token_and_come_into_the_model(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(recipe, "DRAWN_PICTURES", 2)
    drawn = []
    monkeypatch.setattr(Redraw, "__call__", watched_call(Redraw.__call__, drawn))
    places = copy_of(finished, tmp_path)
    assert places.painter == places.decoder_low
    before = Muse.from_pretrained(places.model, "cpu", "float32")
    train.decoder_drawn(places, batch=2)
    assert places.large_painter == places.decoder_drawn
    after = Muse.from_pretrained(places.model, "cpu", "float32")
    of = {name: load_module(VQGAN, VQGANConfig, getattr(places, name)) for name in ("vqgan", "decoder_low")}
    assert of["vqgan"].fingerprint() == of["decoder_low"].fingerprint() == after.vqgan.fingerprint()
    assert not of["vqgan"].decoder.conv_in.weight.equal(of["decoder_low"].decoder.conv_in.weight)
    assert after.vqgan.decoder.conv_in.weight.equal(of["decoder_low"].decoder.conv_in.weight)
    assert before.vqgan_superres is not None
    assert after.vqgan_superres is not None
    assert before.vqgan_superres.fingerprint() == after.vqgan_superres.fingerprint()
    assert before.vqgan_superres.config == after.vqgan_superres.config
    assert not before.vqgan_superres.decoder.conv_in.weight.equal(after.vqgan_superres.decoder.conv_in.weight)
    # The pictures of all steps are two, and 16 are watched: each is drawn once at most.
    assert 0 < len(drawn) <= 18


def test_what_is_drawn_of_a_picture_is_remembered():
    asked = []

    def draw(pictures, step):
        asked.append((len(pictures), step))
        return pictures.mean((1, 2, 3)).mul(100).round().long()[:, None]

    remembered = train.Remembered(draw)
    pictures = torch.rand(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    expected = draw(pictures, 0)
    asked.clear()
    assert remembered(pictures[:2], 5).equal(expected[:2])
    assert remembered(pictures.flip(0), 6).equal(expected.flip(0))
    assert remembered(pictures, 7).equal(expected)
    assert asked == [(2, 0), (2, 0)]  # as of no step, so that a run that goes on remembers the same


def watched_call(call, drawn):
    """A call that notes the pictures that it is given."""

    def watching(self, pictures, step):
        drawn.extend(each.numpy().tobytes() for each in pictures)
        return call(self, pictures, step)

    return watching


def test_a_cascade_is_measured_before_and_after_its_larger_decoder(finished, tmp_path, monkeypatch, capsys):
    # Mean colours of the quarters of a picture instead of the judge's features.
    network = torch.nn.AdaptiveAvgPool2d(2)
    monkeypatch.setattr(cascade_bench, "efficientnet_lite0", lambda weights: network)
    monkeypatch.setattr(cascade_bench, "BATCH", 4)
    command = cascade_bench.Command(
        str(finished.model), tmp_path / "out", plain=finished.vqgan_superres, num=6, places=finished
    )
    cascade_bench.main(command)
    report = json.loads((command.out / "cascade.json").read_text())
    before, after = report["reconstructions"][1:]
    assert [row["size"] for row in report["reconstructions"]] == [64, 128, 128]
    assert before["psnr"] != after["psnr"]
    assert 0 <= report["agreement"]["superres"]["value"] <= 1
    assert report["distances"]["num"] == 6
    # Of six prompts: the small picture and both decoders' large ones, each of the large size.
    assert Image.open(command.out / "sheet.png").width > 3 * 128
    assert "base upsampled bicubically" in capsys.readouterr().out


def test_real_pictures_are_as_far_from_others_as_the_floor_and_wrong_ones_are_further(begun):
    art = dataset.load(begun.folder)
    pictures = cascade_bench.painted(art, list(range(len(art.records))))

    def describe(some):
        return torch.nn.functional.adaptive_avg_pool2d(some, 2).flatten(1)

    half = len(pictures) // 2
    options = BenchOptions(per_category=2, only=("single",))
    order = np.random.default_rng(options.seed).permutation(len(pictures))
    floor = pictures[order[:half]]
    far = cascade_bench.distances(describe(floor), describe(1 - floor), describe(pictures), options)
    assert far.cascade.value == pytest.approx(far.real)
    assert far.base_bicubic.value > far.cascade.value


def test_a_run_of_the_base_can_go_on_from_a_model_that_is_there(begun, tmp_path):
    places = copy_of(begun, tmp_path)
    shipped = places.folder / "shipped"
    places.model.rename(shipped)
    shutil.rmtree(places.vqgan.parent)
    shutil.rmtree(places.base.parent)
    trained = load_module(MaskedTransformer, TransformerConfig, shipped / "base")

    train.base(places, vqgan_from=shipped / "vqgan", base_from=shipped / "base")
    further = load_module(MaskedTransformer, TransformerConfig, places.base)
    steps = [(a - b).abs().max() for a, b in zip(further.parameters(), trained.parameters(), strict=True)]
    assert 0 < max(steps) < 0.01  # two small steps away; another start would be much further

    shutil.rmtree(places.base.parent)
    train.base(places, vqgan_from=shipped / "vqgan", base_from=shipped / "base", learning_rate=1e-5)
    closer = load_module(MaskedTransformer, TransformerConfig, places.base)
    smaller = [(a - b).abs().max() for a, b in zip(closer.parameters(), trained.parameters(), strict=True)]
    assert 0 < max(smaller) < max(steps) / 10
    assert Muse.from_pretrained(places.model, "cpu").vqgan.fingerprint() == trained.config.vqgan_fingerprint


def test_which_pictures_there_are_moves_both_sides_of_a_reconstruction(begun, tiny_vqgan, monkeypatch):
    """Pictures that come back as they were are at no distance, whichever of them there are."""
    pictures = cascade_bench.painted(dataset.load(begun.folder), list(range(8)))
    monkeypatch.setattr(cascade_bench, "through", lambda vqgan, some: some)
    told = cascade_bench.reconstruction(
        "same",
        tiny_vqgan,
        pictures,
        PerceptualLoss(),
        lambda some: torch.nn.functional.adaptive_avg_pool2d(some, 2).flatten(1),
        BenchOptions(per_category=2, only=("single",)),
    )
    assert told.frechet.high < 1e-3
