"""Training from the shell: the walk-through of docs/training.md at toy size, dry runs, exports, and what is refused."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from muse.apps import stages
from muse.apps.cli import main
from muse.checkpoint import load_module, save_module
from muse.data.batches import TokenBatch
from muse.images import contact_sheet
from muse.models.discriminator import PatchDiscriminator
from muse.models.superres import SuperResConfig, SuperResTransformer
from muse.models.transformer import PRESETS, MaskedTransformer, TransformerConfig
from muse.models.vqgan import VQGAN, VQGANConfig
from muse.pipeline import Muse, find_model, load_text_encoder
from muse.training.decoder import with_larger_decoder
from muse.training.estimate import estimate_base, estimate_decoder, estimate_vqgan
from muse.training.export import average_of_folders, remember_parts, remembered_part
from muse.training.recipes import (
    BASE_RECIPES,
    DECODER_RECIPES,
    SUPERRES_RECIPES,
    VQGAN_RECIPES,
    base_paper_3b,
    base_paper_632m,
    decoder_laptop,
    vqgan_laptop_f8,
)
from tests.data.picture_folders import plain_folder, vqgan

pytestmark = pytest.mark.xdist_group("train command")  # one worker sets up once what they share

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs/training.md"
TOY = {"laptop": "debug", "laptop_f8": "debug", "128": "16", "256": "32", "my-pictures": "pictures"}


def walk_through(part):
    """The commands of a part of the document, their sizes those of a toy: the model (0), its super-resolution (1), and
    a larger decoder for that (2), and one that is shown what is drawn (3)."""
    block = re.findall(r"```sh\n(muse train .*?)```", DOCUMENT.read_text(), re.DOTALL)[part]
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


@pytest.fixture(scope="module")
def enlarged(walked):
    """The folder in which super-resolution was walked as well, for a model that draws it in 5 steps."""
    index = walked / "my-model/model_index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "superres_defaults": {"steps": 5}}))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(walked)
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        for command in walk_through(1):
            assert main(command) == 0, command
    return walked


def command_of(stage, folder):
    """The command of the walk-through that trains a transformer, into another folder."""
    (words,) = (words for part in (0, 1) for words in walk_through(part) if words[:2] == ["train", stage])
    return [*words[:-1], str(folder)]


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


@pytest.mark.parametrize(
    ("stage", "network", "config"),
    [("base", MaskedTransformer, TransformerConfig), ("superres", SuperResTransformer, SuperResConfig)],
)
def test_the_exported_weights_are_the_average_of_those_that_were_kept(enlarged, tmp_path, stage, network, config):
    assert main(["export", str(enlarged / "runs" / stage), str(tmp_path / "model")]) == 0
    kept = sorted((enlarged / "runs" / stage / "kept").glob(f"step-*/{stage}"))
    assert [path.parent.name for path in kept] == ["step-00000002", "step-00000004", "step-00000006"]
    weights = [load_module(network, config, path).state_dict() for path in kept]
    exported = load_module(network, config, tmp_path / "model" / stage).state_dict()
    for name, weight in exported.items():
        first, second, third = (each[name] for each in weights)
        torch.testing.assert_close(weight, 0.49 * first + 0.21 * second + 0.3 * third)


def test_of_the_weights_that_were_kept_only_whole_ones_count(enlarged, tmp_path):
    run = shutil.copytree(enlarged / "runs", tmp_path / "runs") / "base"
    assert main(["export", str(run), str(tmp_path / "before")]) == 0
    (run / "kept/step-00000007/base").mkdir(parents=True)  # as a full disk leaves it
    assert main(["export", str(run), str(tmp_path / "after")]) == 0
    before, after = (
        load_module(MaskedTransformer, TransformerConfig, tmp_path / name / "base") for name in ("before", "after")
    )
    assert all(weight.equal(after.state_dict()[name]) for name, weight in before.state_dict().items())


def test_the_average_of_one_folder_is_itself(tmp_path):
    made = vqgan()
    save_module(made, tmp_path)
    assert all(made.state_dict()[name].equal(weight) for name, weight in average_of_folders([tmp_path]).items())


@pytest.mark.parametrize("last", ["0", "-1"])
def test_an_average_of_no_weights_is_refused_with_one_sentence(enlarged, tmp_path, last, capsys):
    assert main(["export", str(enlarged / "runs/base"), str(tmp_path / "model"), "--last", last]) == 2
    assert f"the last {last} weights that were kept are to be averaged; give at least 1" in capsys.readouterr().err
    assert not (tmp_path / "model").exists()


def test_an_average_of_more_weights_than_were_kept_is_refused_with_one_sentence(enlarged, tmp_path, capsys):
    assert main(["export", str(enlarged / "runs/base"), str(tmp_path / "model"), "--last", "4"]) == 2
    assert re.search(r"last 4 weights .* and \S+ kept 3; leave --last out, or train with", capsys.readouterr().err)
    assert not (tmp_path / "model").exists()


def test_an_export_has_a_name_and_a_card_wherever_one_stands(enlarged, tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path / "mine")
    assert main(["export", str(enlarged / "runs/superres"), "."]) == 0
    muse = Muse.from_pretrained(".", "cpu")
    assert muse.name == "mine"
    card = Path("README.md").read_text()
    assert "It draws 32 x 32 pixels" in card
    assert 'muse generate "a prompt" --model mine\n' in card
    assert f"| superres | {sum(each.numel() for each in muse.modules[3].parameters()):,} |" in card
    Path("README.md").write_text("What I wrote.")
    assert main(["export", str(enlarged / "runs/base"), "."]) == 0
    assert Path("README.md").read_text() == "What I wrote."


def test_a_part_that_came_for_a_whole_is_called_by_its_name(enlarged, monkeypatch, capsys):
    monkeypatch.chdir(enlarged)
    base = "train base debug runs/tokens --vqgan my-model --engine.folder runs/none --text-encoder"
    for command, sentence in (
        (
            "export runs/vqgan out",
            "runs/vqgan is a run of a VQGAN, which needs no export: it is runs/vqgan/vqgan; give",
        ),
        (
            "info runs/vqgan/vqgan",
            "runs/vqgan/vqgan is a VQGAN alone; give the folder of a whole model, which has a mo",
        ),
        (f"{base} runs/vqgan/vqgan", "runs/vqgan/vqgan is a VQGAN; give the folder of a text encoder, as transformers"),
    ):
        assert main(command.split()) == 2
        assert capsys.readouterr().err.startswith(f"muse: {sentence}")
    assert not Path("runs/none").exists()


@pytest.mark.parametrize(
    ("stage", "flags"),
    [("base", ["--model.height", "--model.num-codes"]), ("superres", ["--model.low-num-codes", "--model.text-dim"])],
)
def test_what_comes_with_the_tokens_is_no_option_and_a_dry_run_has_it(enlarged, stage, flags, monkeypatch, capsys):
    monkeypatch.chdir(enlarged)
    command = command_of(stage, "runs/none")
    for flag in flags:
        assert main([*command, flag, "99"]) == 2
        assert f"{flag} comes with the tokens and with what reads the text; leave it out" in capsys.readouterr().err
    assert main([*command, "--dry-run"]) == 0
    told = capsys.readouterr().out
    kept = json.loads(Path(f"runs/{stage}/{stage}/config.json").read_text())
    for name in ("num_codes", "height", "text_dim"):
        assert re.search(rf"^model.{name.replace('_', '-')} +{kept[name]}$", told, re.MULTILINE)
    assert not Path("runs/none").exists()


def test_a_run_of_super_resolution_is_exported_as_a_whole_cascade(enlarged, tmp_path):
    assert main(["export", str(enlarged / "runs/superres"), str(tmp_path / "large")]) == 0
    high = load_module(VQGAN, VQGANConfig, enlarged / "runs/vqgan-high/vqgan")
    small = Muse.from_pretrained(enlarged / "my-model", "cpu")
    muse = Muse.from_pretrained(tmp_path / "large", "cpu")
    assert muse.vqgan_superres is not None
    assert muse.vqgan_superres.fingerprint() == high.fingerprint()
    assert muse.superres is not None
    assert muse.superres.config.upsampled_dim == high.config.code_dim
    assert (muse.defaults, muse.superres_defaults.steps) == (small.defaults, 5)
    assert Image.open(enlarged / "large.png").size == muse.size == (32, 32)
    assert muse.generate(["a ladybird"], [0])[0].size == (32, 32)


def sheet_of(num):
    """Width and height of a sheet of large pictures side by side."""
    return contact_sheet([Image.new("RGB", (32, 32))] * num, columns=8).size


def test_super_resolution_leaves_a_cascade_and_what_it_drew_at_every_checkpoint(enlarged):
    muse = Muse.from_pretrained(enlarged / "runs/superres/model", "cpu")
    assert muse.size == (32, 32)
    assert muse.superres_defaults.steps == 5
    for step in (3, 6):  # of two held-out captions
        assert Image.open(enlarged / f"runs/superres/drawn-{step:06}.png").size == sheet_of(2)


def test_super_resolution_draws_the_prompts_that_are_given(enlarged, tmp_path, monkeypatch):
    monkeypatch.chdir(enlarged)
    more = ["--prompts", "a ladybird", "a ladybird", "two foxes", "--engine.steps", "1"]
    assert main([*command_of("superres", tmp_path), *more]) == 0
    assert Image.open(tmp_path / "drawn-000001.png").size == sheet_of(3)


@pytest.mark.parametrize("stage", ["base", "superres"])
@pytest.mark.parametrize(
    ("prompt", "said"),
    [("", "the prompt is empty"), ("a fox " * 300, "sub-words and the text encoder reads at most")],
    ids=["empty", "long"],
)
def test_prompts_that_cannot_be_drawn_are_refused_before_a_run_begins(
    stage, prompt, said, enlarged, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(enlarged)
    folder = tmp_path / "run"
    assert main([*command_of(stage, folder), "--prompts", "a ladybird", prompt]) == 2
    assert said in capsys.readouterr().err
    assert not folder.exists()


def test_of_the_held_out_captions_those_that_say_nothing_are_not_drawn(tiny_t5):
    batches = [TokenBatch(torch.zeros(2, 4, dtype=torch.long), ["", "a dog"])]
    batches += [TokenBatch(torch.zeros(9, 4, dtype=torch.long), [f"two {'dog ' * i}" for i in range(9)])]
    assert list(stages.watched_prompts((), batches, tiny_t5)) == ["a dog", *(f"two {'dog ' * i}" for i in range(7))]


def test_two_processes_draw_and_leave_a_cascade_too(enlarged, tmp_path):
    command = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "muse"]
    more = ["--engine.strategy", "fsdp", "--engine.steps", "2"]
    ran = subprocess.run(
        [sys.executable, "-m", *command, *command_of("superres", tmp_path), *more],
        cwd=enlarged,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert ran.returncode == 0, ran.stderr[-6000:]
    assert ran.stdout.split() == [str(tmp_path / "model")]
    assert Image.open(tmp_path / "drawn-000002.png").size == sheet_of(2)
    assert Muse.from_pretrained(tmp_path / "model", "cpu").size == (32, 32)


@pytest.mark.parametrize("stage", ["base", "superres"])
def test_a_run_that_is_killed_after_a_checkpoint_can_be_exported(enlarged, tmp_path, monkeypatch, stage):
    class Killed(BaseException):
        pass

    train = getattr(stages, f"train_{stage}")

    def killed(*arguments):
        train(*arguments)
        raise Killed

    monkeypatch.setattr(stages, f"train_{stage}", killed)
    monkeypatch.chdir(enlarged)
    with pytest.raises(Killed):
        main([*command_of(stage, tmp_path / "run"), "--engine.steps", "3"])
    assert main(["export", str(tmp_path / "run"), str(tmp_path / "model")]) == 0
    assert Muse.from_pretrained(tmp_path / "model", "cpu").size == ((16, 16) if stage == "base" else (32, 32))


@pytest.mark.parametrize("parts", [("vqgan", "text_encoder"), ("model", "vqgan_superres")])
def test_a_run_without_weights_is_refused_with_one_sentence(here, capsys, parts):
    remember_parts(here / "run", **{part: here / part for part in parts})
    assert main(["export", "run", "out"]) == 2
    assert capsys.readouterr().err == "muse: run has no weights yet; a run leaves some at its first checkpoint\n"


def test_a_run_is_exported_from_where_it_was_moved_with_what_lies_beside_it(enlarged, tmp_path, monkeypatch):
    """The text encoder, which ships, stays where it is."""
    monkeypatch.chdir(enlarged)
    for part in ("base", "vqgan"):
        shutil.copytree(f"runs/{part}", tmp_path / "moved" / part)
    parts = json.loads((tmp_path / "moved/base/parts.json").read_text())
    text_encoder = str(find_model("emoji") / "text_encoder")
    absolute = {"vqgan": str(enlarged / "runs/vqgan/vqgan"), "text_encoder": text_encoder}
    assert parts == {"vqgan": "../vqgan/vqgan", "text_encoder": text_encoder, "absolute": absolute}
    (enlarged / "runs/vqgan").rename(enlarged / "runs/away")
    try:
        assert main(["export", str(tmp_path / "moved/base"), str(tmp_path / "model")]) == 0
    finally:
        (enlarged / "runs/away").rename(enlarged / "runs/vqgan")
    assert Muse.from_pretrained(tmp_path / "model", "cpu").size == (16, 16)


def test_a_run_that_was_copied_away_alone_finds_its_parts_where_they_were_but_what_lies_beside_it_first(here):
    for part in ("vqgan", "text_encoder"):
        (here / "runs" / part).mkdir(parents=True)
    remember_parts(Path("runs/base"), vqgan=Path("runs/vqgan"), text_encoder=Path("runs/text_encoder"))
    shutil.copytree("runs/base", "away/base")
    for part in ("vqgan", "text_encoder"):
        assert remembered_part(Path("away/base"), part) == here / "runs" / part
    (here / "away/vqgan").mkdir()
    assert remembered_part(Path("away/base"), "vqgan") == here / "away/vqgan"


@pytest.mark.parametrize("is_absolute", [False, True])
def test_a_run_whose_part_is_gone_is_refused_with_one_sentence(enlarged, tmp_path, monkeypatch, capsys, is_absolute):
    """Runs of before note absolute paths only, or relative ones only."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(enlarged / "runs/base", "runs/base")
    path = tmp_path / "runs/base/parts.json"
    place = str(tmp_path / "runs/vqgan/vqgan") if is_absolute else "../vqgan/vqgan"
    parts = json.loads(path.read_text())
    path.write_text(json.dumps({"vqgan": place, "text_encoder": parts["text_encoder"]}))
    assert main(["export", "runs/base", "out"]) == 2
    assert capsys.readouterr().err == (
        f"muse: runs/base/parts.json says that the run's vqgan is {place}, which is gone; "
        "put it back, or write there where it is now\n"
    )
    shutil.copytree(enlarged / "runs/vqgan", "runs/vqgan")
    assert main(["export", "runs/base", "out"]) == 0


def test_a_larger_decoder_trains_by_command_too_and_comes_into_the_model(enlarged, monkeypatch, capsys):
    monkeypatch.chdir(enlarged)
    train, export = walk_through(2)
    assert main([*train, "--decoder-blocks", "2"]) == 0
    told = capsys.readouterr().out
    assert re.fullmatch(r"runs/decoder/vqgan  \(8 of 9 pictures that this run looked at were used; .*\)\n", told), told
    assert main(export) == 0
    high = load_module(VQGAN, VQGANConfig, enlarged / "runs/vqgan-high/vqgan")
    larger = Muse.from_pretrained(enlarged / "my-larger-model", "cpu").vqgan_superres
    assert larger is not None
    assert larger.fingerprint() == high.fingerprint()
    assert larger.config.decoder_blocks == 2 != high.config.decoder_blocks


def test_a_decoder_is_shown_what_super_resolution_draws_by_command(enlarged, monkeypatch, capsys):
    monkeypatch.chdir(enlarged)
    (train,) = walk_through(3)
    assert main([*train, "--drawn-share", "1"]) == 0
    line = json.loads((enlarged / "runs/decoder-drawn/metrics.jsonl").read_text().splitlines()[-1])
    assert {"reconstruction", "gradient", "validation_gradient"} <= line.keys()
    plain = [*train[: train.index("--drawn-by")], *train[train.index("--gradient-weight") : -1], "runs/decoder-own"]
    assert main(plain) == 0
    drawn, own = (load_module(VQGAN, VQGANConfig, enlarged / f"runs/decoder-{name}/vqgan") for name in ("drawn", "own"))
    assert drawn.fingerprint() == own.fingerprint()
    assert not drawn.decoder.conv_in.weight.equal(own.decoder.conv_in.weight)
    capsys.readouterr()
    train[train.index("--size") + 1] = "16"
    assert main(train) == 2
    sentence = "the model runs/superres/model draws 32 x 32 pixels and the pictures have 16 a side; give a size of 32\n"
    assert sentence in capsys.readouterr().err


def test_of_a_model_the_decoder_of_what_is_drawn_is_trained(enlarged, monkeypatch, capsys):
    """As that of the large pictures is what super-resolution draws the tokens of; a run stands for its own VQGAN."""
    monkeypatch.chdir(enlarged)
    monkeypatch.setattr(stages, "train_decoder", lambda training, vqgan, *_: tried.append(vqgan) or Path("run"))
    tried = []
    high = load_module(VQGAN, VQGANConfig, enlarged / "runs/vqgan-high/vqgan").fingerprint()
    words = ["train", "decoder", "debug", "pictures", "--size", "32", "--drawn-by", "runs/superres/model"]
    for place in ("runs/superres/model", "runs/vqgan-high"):
        assert main([*words, "--vqgan", place]) == 0
        assert tried.pop().fingerprint() == high
    capsys.readouterr()
    assert main([*words, "--vqgan", "my-model"]) == 2
    assert capsys.readouterr().err == (
        "muse: my-model has no VQGAN of super-resolution; give a model that has one, or the VQGAN's own folder\n"
    )


def test_a_model_is_exported_with_the_vqgan_of_its_tokens_only(enlarged, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(enlarged)
    for run in ("base", "superres"):
        assert main(["export", f"runs/{run}", str(tmp_path / run), "--vqgan", str(find_model("emoji") / "vqgan")]) == 2
        assert "take both from one model" in capsys.readouterr().err
        assert not (tmp_path / run).exists()
    assert main(["export", "runs/base", str(tmp_path / "emoji"), "--vqgan", "emoji"]) == 2  # as of a model that ships
    assert "take both from one model" in capsys.readouterr().err
    for place in ("my-model/vqgan", "my-model"):
        assert main(["export", "runs/base", str(tmp_path / "same"), "--vqgan", place]) == 0


def test_a_model_is_exported_over_a_larger_one_without_leaving_parts_of_it(enlarged, tmp_path):
    assert main(["export", str(enlarged / "runs/superres"), str(tmp_path / "model")]) == 0
    (tmp_path / "model/README.md").touch()
    assert main(["export", str(enlarged / "runs/base"), str(tmp_path / "model")]) == 0
    names = ["README.md", "base", "model_index.json", "text_encoder", "vqgan"]
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == names


def test_a_model_is_exported_beside_what_is_called_as_a_part(enlarged, tmp_path):
    (tmp_path / "model/superres").mkdir(parents=True)
    for _ in range(2):
        assert main(["export", str(enlarged / "runs/base"), str(tmp_path / "model")]) == 0
        assert (tmp_path / "model/superres").is_dir()


def test_high_tokens_are_of_the_high_vqgan_of_a_model(enlarged, tmp_path, monkeypatch):
    monkeypatch.chdir(enlarged)
    command = "tokenize pictures {} --model my-model --size 16 --high {} --high-size 32"
    for out, high in (("one", "runs/superres/model"), ("other", "runs/vqgan-high/vqgan")):
        assert main(command.format(tmp_path / out, high).split()) == 0
    one, other = (json.loads((tmp_path / out / "cache.json").read_text()) for out in ("one", "other"))
    assert one["high"] == other["high"] != one["low"]


# -- what would be ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "recipe",
    [
        *(f"vqgan {name}" for name in VQGAN_RECIPES),
        *(f"base {name}" for name in BASE_RECIPES),
        *(f"superres {name}" for name in SUPERRES_RECIPES),
        *(f"decoder {name}" for name in DECODER_RECIPES),
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


def test_the_estimate_of_a_larger_decoder_counts_what_it_trains_and_the_encoder_only_on_the_way_forward():
    recipe, vqgan_recipe = decoder_laptop(), vqgan_laptop_f8()
    assert recipe.made_for == vqgan_recipe.training.model
    estimate, of_vqgan = estimate_decoder(recipe), estimate_vqgan(vqgan_recipe)
    larger = with_larger_decoder(VQGAN(recipe.made_for), recipe.training.decoder_channels, 2)
    trained = (larger.decoder, PatchDiscriminator(recipe.training.discriminator))
    assert estimate.parameters == sum(p.numel() for part in trained for p in part.parameters())
    fixed = sum(p.numel() for part in (larger.encoder, larger.quantizer) for p in part.parameters())
    assert estimate.state_bytes == 4 * (5 * estimate.parameters + 2 * fixed)
    assert estimate.batch_size == of_vqgan.batch_size == 8
    assert estimate.flops > of_vqgan.flops


def test_a_dry_run_of_a_larger_decoder_counts_with_the_vqgan_that_is_given(enlarged, monkeypatch, capsys):
    monkeypatch.chdir(enlarged)
    told = []
    for vqgan_of in ("runs/vqgan-high/vqgan", "emoji"):
        assert main(["train", "decoder", "debug", "--dry-run", "--vqgan", vqgan_of]) == 0
        told.append(capsys.readouterr().out)
    parameters = [re.findall(r"^parameters +([\d,]+)$", each, re.MULTILINE) for each in told]
    assert parameters[0] != parameters[1]
    assert re.search(r"^made-for.num-codes +2048$", told[1], re.MULTILINE)


# -- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("train sleep", r"there is no stage 'sleep'; give one of: vqgan, base, superres, decoder"),
        ("train base huge", r"there is no recipe 'huge' of base; give one of: laptop, paper_632m, paper_3b, debug"),
        ("train vqgan", r"no recipe came; give one of: laptop, laptop_f8, paper_f16, paper_f8, debug$"),
        ("train vqgan debug", r"no pictures came; give a folder, tars, parquet files or a data set of the hub"),
        ("train base debug", r"no token cache came; give the folder that muse tokenize made"),
        ("train base debug empty --vqgan emoji", r"empty is no whole token cache; make one with: muse tokenize SOURCE"),
        ("train vqgan debug empty", r"empty has no pictures, tars or parquet files in it; give a folder that has"),
        ("train vqgan debug pictures --size 0", r"size is 0; give a whole number of at least 1$"),
        ("train decoder debug pictures --vqgan emoji --size -16", r"size is -16; give a whole number of at least 1$"),
        ("train vqgan debug pictures --engine.strategy fsdp", r"a VQGAN is small and its codebook is one for all"),
        (
            "train decoder debug --dry-run --decoder-blocks 0",
            r"decoder_blocks is 0 and the decoder has 1 already",
        ),
        (
            "train decoder debug pictures --vqgan emoji --drawn-share 0.75",
            r"drawn_share is 0.75 and no model came that draws; give --drawn-by with one, or leave --drawn-share out$",
        ),
        ("tokenize empty out", r"empty has no pictures, tars or parquet files in it; give a folder that has"),
        ("tokenize pictures out --size 100", r"size 100 is not a multiple of 16; try 96"),
        ("tokenize pictures out --size 0", r"size is 0; give a whole number of at least 1$"),
        ("tokenize pictures out --size -16", r"size is -16; give a whole number of at least 1$"),
        ("tokenize pictures out --threads 0", r"threads is 0; give a whole number of at least 1$"),
        ("tokenize pictures out --batch-size 0", r"batch_size is 0; give a whole number of at least 1$"),
        ("tokenize pictures out --source.rows-per-piece 0", r"rows_per_piece is 0; give a whole number of at least 1$"),
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
    assert not (tmp_path / "out").exists()


def test_pictures_are_not_tokenized_on_a_device_that_there_is_not(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LOCAL_RANK", "99")
    pictures = str(plain_folder(tmp_path / "pictures", 3))
    assert main(["tokenize", pictures, str(tmp_path / "out"), "--size", "16", "--device", "cuda"]) == 2
    assert capsys.readouterr().err.startswith("muse: device 'cuda:99' cannot be used (")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("command", "rank", "num", "sentence"),
    [
        ("tokenize pictures out", "1", "1", r"RANK is '1' and WORLD_SIZE '1'; give whole numbers, RANK the smaller$"),
        ("tokenize pictures out", "one", "2", r"RANK is 'one' and WORLD_SIZE '2'; give whole numbers"),
        ("train vqgan debug pictures", "1", "1", r"RANK is '1' and WORLD_SIZE '1'; give whole"),
        ("train vqgan debug pictures", "0", "2", r"RANK is 0 and WORLD_SIZE 2 without torchrun; start"),
        ("train vqgan debug pictures", "1", "2", r"RANK is 1 and WORLD_SIZE 2 without torchrun; start"),
    ],
)
def test_processes_that_do_not_know_of_each_other_are_refused(command, rank, num, sentence, here, monkeypatch, capsys):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", num)
    plain_folder(here / "pictures", 3)
    assert main(command.split()) == 2
    assert re.fullmatch(rf"muse: {sentence}.*\n", capsys.readouterr().err)
    assert [path.name for path in here.iterdir()] == ["pictures"]


def test_a_process_without_torchrun_that_is_the_only_one_trains_and_speaks(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    plain_folder(tmp_path / "pictures", 8)
    train = f"train vqgan debug {tmp_path / 'pictures'} --size 16 --engine.steps 2 --engine.folder {tmp_path / 'out'}"
    assert main(train.split()) == 0
    assert capsys.readouterr().out.startswith(str(tmp_path / "out"))


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("train base debug --dry-run --model.heads 0", "heads is 0; give a whole number of at least 1"),
        ("train superres debug --dry-run --model.depth -1", "depth is -1; give a whole number of at least 1"),
        ("train vqgan debug --dry-run --model.num-codes 0", "num_codes is 0; give a whole number of at least 2"),
    ],
)
def test_a_network_of_no_size_is_refused_by_name(command, sentence, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(command.split())
    assert sentence in " ".join(capsys.readouterr().err.split())


def test_a_cache_made_by_another_vqgan_is_refused_with_one_sentence(walked, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(walked)
    assert main(["train", "base", "debug", "runs/tokens", "--vqgan", "emoji", "--engine.folder", str(tmp_path)]) == 2
    assert re.search(
        r"^muse: the low tokens of runs/tokens are of VQGAN \w+ and this is VQGAN", capsys.readouterr().err
    )


@pytest.mark.parametrize("stage", ["base", "vqgan"])
def test_a_run_does_not_hold_out_other_rows_when_it_goes_on(walked, tmp_path, monkeypatch, capsys, stage):
    monkeypatch.chdir(walked)
    shutil.copytree(f"runs/{stage}", tmp_path / "run")
    (words,) = (words for words in walk_through(0) if words[:2] == ["train", stage])
    assert main([*words[:-1], str(tmp_path / "run"), "--held-out", "1", "--engine.steps", "8"]) == 2
    assert re.search(r"was begun with --held-out 2, and this one has 1; give the same, or", capsys.readouterr().err)


def test_text_states_of_another_encoder_are_refused_with_one_sentence(enlarged, tmp_path, monkeypatch, capsys):
    """Of equal width, so that only the states tell."""
    monkeypatch.chdir(enlarged)
    encoder = load_text_encoder(find_model("emoji") / "text_encoder")
    words = next(encoder.parameters())
    words.data = words.flip(0)
    shutil.copytree("my-model", tmp_path / "other")
    encoder.save(tmp_path / "other/text_encoder")
    high, tokens = "runs/vqgan-high/vqgan", str(tmp_path / "tokens")
    made = f"--model my-model --size 16 --high {high} --high-size 32 --text-encoder emoji"
    assert main(["tokenize", "pictures", tokens, *made.split()]) == 0
    base = ["train", "base", "debug", tokens, "--vqgan", "my-model", "--engine.steps", "1", "--engine.folder"]
    superres = ["train", "superres", "debug", tokens, "--high", high, "--engine.steps", "1", "--engine.folder"]
    for stage, flag in ((base, "--text-encoder"), (superres, "--model")):
        capsys.readouterr()
        assert main([*stage, str(tmp_path / "run"), flag, str(tmp_path / "other")]) == 2
        assert re.search(
            r"^muse: the text states of \S+ are not those of this text encoder; give the one that made them \(.*\), or",
            capsys.readouterr().err,
            re.MULTILINE,
        )
    assert not (tmp_path / "run").exists()
    assert main([*base, str(tmp_path / "run")]) == 0


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


def test_train_alone_lists_every_recipe_of_every_stage(capsys):
    assert main(["train"]) == 0
    lines = capsys.readouterr().out.splitlines()
    wanted = [(name, recipe) for name, stage in stages.STAGES.items() for recipe in stage.recipes()]
    assert [tuple(line.split()[2:4]) for line in lines] == wanted
    assert all(len(line.split()) > 6 for line in lines)


def test_a_model_is_not_exported_over_its_run(enlarged, capsys):
    run = enlarged / "runs/base"
    before = sorted(path.name for path in run.iterdir())
    assert main(["export", str(run), f"{run}/"]) == 2
    assert "is the run's own folder" in capsys.readouterr().err
    assert sorted(path.name for path in run.iterdir()) == before


@pytest.mark.parametrize(
    ("there", "message"),
    [
        ("parts.json", "out is a training run; give another folder for the model"),
        ("order.json", "out is a training run; give another folder for the model"),
        ("state.pt", "out is a training run; give another folder for the model"),
        ("checkpoints/step-00000006/.metadata", "out is a training run; give another folder for the model"),
        ("base/parts.json", "out/base is a training run; give another folder for the model"),
        ("model.safetensors", "out holds model.safetensors and no model; give a new folder, an empty one or a model's"),
        ("pictures/cat.png", "out holds pictures and no model; give a new folder, an empty one or a model's"),
    ],
)
def test_a_model_is_exported_neither_over_a_run_nor_among_other_things(
    enlarged, tmp_path, monkeypatch, capsys, there, message
):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "out" / there
    file.parent.mkdir(parents=True)
    file.touch()
    before = sorted(tmp_path.rglob("*"))
    assert main(["export", str(enlarged / "runs/base"), "out"]) == 2
    assert capsys.readouterr().err == f"muse: {message}\n"
    assert sorted(tmp_path.rglob("*")) == before


def test_a_model_is_not_exported_over_another_run_even_if_a_model_was_before(enlarged, tmp_path, capsys):
    other = shutil.copytree(enlarged / "runs/base", tmp_path / "other")
    (other / "model_index.json").touch()
    weights = (other / "base/model.safetensors").read_bytes()
    assert main(["export", str(enlarged / "runs/superres"), str(other)]) == 2
    assert "other is a training run" in capsys.readouterr().err
    assert (other / "base/model.safetensors").read_bytes() == weights


def test_a_model_is_exported_over_what_is_left_of_an_export_and_beside_a_card(enlarged, tmp_path):
    for name in ("text_encoder", ".git"):
        (tmp_path / "out" / name).mkdir(parents=True)
    (tmp_path / "out/README.md").touch()
    assert main(["export", str(enlarged / "runs/base"), str(tmp_path / "out")]) == 0
    assert (tmp_path / "out/README.md").is_file()


def test_a_run_that_is_stopped_ends_as_such(walked, tmp_path, monkeypatch):
    monkeypatch.chdir(walked)
    monkeypatch.setattr("muse.training.engine.Engine.export", lambda *_, **__: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(SystemExit) as stopped:
        main(command_of("base", tmp_path))
    assert stopped.value.code == 130
