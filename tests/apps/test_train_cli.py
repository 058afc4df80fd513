"""Training from the shell: the walk-through of docs/training.md at toy size, dry runs, exports, and what is refused."""

import json
import re
import shlex
from pathlib import Path

import pytest
import torch
from PIL import Image

from muse.apps.cli import main
from muse.checkpoint import load_module, save_module
from muse.models.transformer import PRESETS, MaskedTransformer, TransformerConfig
from muse.models.vqgan import VQGAN, VQGANConfig
from muse.pipeline import Muse
from muse.training.estimate import estimate_base
from muse.training.export import average_of_folders
from muse.training.recipes import BASE_RECIPES, SUPERRES_RECIPES, VQGAN_RECIPES, base_paper_3b, base_paper_632m
from tests.data.picture_folders import plain_folder, vqgan

DOCUMENT = Path(__file__).parents[2] / "docs/training.md"
TOY = {"laptop": "debug", "laptop_f8": "debug", "128": "16", "256": "32", "my-pictures": "pictures"}


def walk_through(part):
    """The commands of a part of the document, their sizes those of a toy: the model (0), its super-resolution (1)."""
    block = re.findall(r"```sh\n(muse train vqgan.*?)```", DOCUMENT.read_text(), re.DOTALL)[part]
    lines = block.replace("\\\n", " ").splitlines()
    return [[TOY.get(word, word) for word in shlex.split(line, comments=True)[1:]] for line in lines if line]


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    """The folder in which the walk-through was walked."""
    folder = plain_folder(tmp_path_factory.mktemp("walked") / "pictures", 8).parent
    (folder / "pictures/broken.png").write_bytes(b"no picture")
    (folder / "pictures/broken.txt").write_text("a broken picture")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        for command in walk_through(0):
            assert main(command) == 0, command
    return folder


def test_the_walk_through_ends_with_a_picture_of_the_new_model(walked):
    pictures = [path for path in walked.glob("*.png") if path.name != "large.png"]
    assert len(pictures) == 1
    assert Image.open(pictures[0]).size == (16, 16)


def test_the_walk_through_leaves_metrics_samples_and_a_whole_model(walked):
    lines = [json.loads(line) for line in (walked / "runs/base/metrics.jsonl").read_text().splitlines()]
    assert "validation_loss" in lines[-1]
    assert (walked / "runs/base/drawn-000006.png").is_file()
    assert (walked / "runs/vqgan/reconstructions-000006.png").is_file()
    muse = Muse.from_pretrained(walked / "my-model", "cpu")
    assert muse.base.config.vqgan_fingerprint == muse.vqgan.fingerprint()


def test_a_damaged_picture_is_counted_in_the_last_line(walked, capsys):
    assert json.loads((walked / "runs/tokens/cache.json").read_text())["tally"] == (
        "8 of 9 pictures used; skipped 1 damaged"
    )


def test_the_exported_weights_are_the_average_of_those_that_were_kept(walked):
    kept = sorted((walked / "runs/base/kept").glob("step-*/base"))
    assert [path.parent.name for path in kept] == ["step-00000002", "step-00000004", "step-00000006"]
    weights = [load_module(MaskedTransformer, TransformerConfig, path).state_dict() for path in kept]
    exported = load_module(MaskedTransformer, TransformerConfig, walked / "my-model/base").state_dict()
    for name, weight in exported.items():
        first, second, third = (each[name] for each in weights)
        torch.testing.assert_close(weight, 0.49 * first + 0.21 * second + 0.3 * third)


def test_the_average_of_one_folder_is_itself(tmp_path):
    made = vqgan()
    save_module(made, tmp_path)
    assert all(made.state_dict()[name].equal(weight) for name, weight in average_of_folders([tmp_path]).items())


def test_super_resolution_and_a_larger_decoder_train_by_command_too(walked, monkeypatch, capsys):
    monkeypatch.chdir(walked)
    decoder = "train decoder debug pictures --vqgan runs/vqgan-high/vqgan --engine.folder runs/decoder"
    for command in (*walk_through(1), [*decoder.split(), "--decoder-blocks", "2"]):
        assert main(command) == 0, capsys.readouterr().err
    high = load_module(VQGAN, VQGANConfig, walked / "runs/vqgan-high/vqgan")
    muse = Muse.from_pretrained(walked / "runs/superres/model", "cpu")
    assert muse.vqgan_superres is not None
    assert muse.vqgan_superres.fingerprint() == high.fingerprint()
    assert muse.superres is not None
    assert muse.superres.config.upsampled_dim == high.config.code_dim
    assert Image.open(walked / "large.png").size == muse.size == (32, 32)
    larger = load_module(VQGAN, VQGANConfig, walked / "runs/decoder/vqgan")
    assert larger.fingerprint() == high.fingerprint()
    assert larger.config.decoder_blocks == 2 != high.config.decoder_blocks


# -- what would be ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "recipe",
    [
        *(f"vqgan {name}" for name in VQGAN_RECIPES),
        *(f"base {name}" for name in BASE_RECIPES),
        *(f"superres {name}" for name in SUPERRES_RECIPES),
    ],
)
def test_a_dry_run_says_what_every_recipe_is_and_takes(recipe, capsys, tmp_path, monkeypatch):
    folder = tmp_path / "untouched"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert main(["train", *recipe.split(), "--dry-run", "--engine.learning-rate", "0.25", "--batch-size", "64"]) == 0
    told = capsys.readouterr().out
    assert re.search(r"^engine.learning-rate +0.25$", told, re.MULTILINE)
    assert re.search(r"^parameters +[\d,]+$", told, re.MULTILINE)
    assert re.search(r"^memory a device +1: [\d,.]+ GiB  8: [\d,.]+ GiB  64: [\d,.]+ GiB  512: ", told, re.MULTILINE)
    assert list(folder.iterdir()) == []


def test_the_estimate_of_the_papers_models_is_what_theory_says():
    """Six operations for each weight and token that meet, and attention besides."""
    recipes = (base_paper_632m(), base_paper_3b())
    estimates = [estimate_base(recipe) for recipe in recipes]
    for recipe, estimate, millions in zip(recipes, estimates, (632, 3000), strict=True):
        assert estimate.parameters == pytest.approx(millions * 1e6, rel=0.1)
        backward = 4 / 3 if recipe.training.engine.recompute else 1
        assert estimate.flops == pytest.approx(6 * estimate.parameters * 256 * 512 * backward, rel=0.2)
    shards = [estimates[1].memory(n, recipes[1].training.engine) for n in (1, 8, 64, 512)]
    assert shards == sorted(shards, reverse=True)
    assert shards[0] > 3e9 * 4 * 4
    assert PRESETS["muse-3b"] == base_paper_3b().training.model


# -- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("train", r"there is no stage ''; give one of: vqgan, base, superres, decoder"),
        ("train sleep", r"there is no stage 'sleep'; give one of: vqgan, base, superres, decoder"),
        ("train base huge", r"there is no recipe 'huge' of base; give one of: laptop, paper_632m, paper_3b, debug"),
        ("train vqgan debug", r"no pictures came; give a folder, tars, parquet files or a data set of the hub"),
        ("train base debug", r"no token cache came; give the folder that muse tokenize made"),
        ("train base debug empty --vqgan emoji", r"empty is no whole token cache; make one with: muse tokenize SOURCE"),
        ("train vqgan debug empty", r"empty has no pictures, tars or parquet files in it; give a folder that has"),
        ("train vqgan debug pictures --engine.strategy fsdp", r"a VQGAN is small and its codebook is one for all"),
        ("tokenize empty out", r"empty has no pictures, tars or parquet files in it; give a folder that has"),
        ("tokenize pictures out --size 100", r"size 100 is not a multiple of 16; try 96"),
        ("export empty out", r"empty/parts.json is missing"),
        ("import-vqgan nowhere.ckpt out", r"nowhere.ckpt is missing; give a checkpoint file or a folder"),
    ],
)
def test_what_cannot_be_done_is_refused_with_one_sentence(command, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    plain_folder(tmp_path / "pictures", 3)
    assert main(command.split()) == 2
    said = capsys.readouterr().err
    assert re.search(rf"^muse: {sentence}", said, re.MULTILINE), said
    assert "Traceback" not in said


def test_a_cache_made_by_another_vqgan_is_refused_with_one_sentence(walked, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(walked)
    assert main(["train", "base", "debug", "runs/tokens", "--vqgan", "emoji", "--engine.folder", str(tmp_path)]) == 2
    assert re.search(
        r"^muse: the low tokens of runs/tokens are of VQGAN \w+ and this is VQGAN", capsys.readouterr().err
    )


def test_every_field_of_a_recipe_stands_in_its_help(capsys):
    with pytest.raises(SystemExit):
        main(["train", "base", "laptop", "--help"])
    told = capsys.readouterr().out
    for flag in ("--engine.keep-every", "--model.depth", "--optimizer", "--batch-size", "--engine.strategy", "--vqgan"):
        assert flag in told


def test_the_help_of_a_stage_lists_its_recipes(capsys):
    assert main(["train", "vqgan", "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[3] for line in lines] == list(VQGAN_RECIPES)
