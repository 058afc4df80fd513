"""`Muse`, from texts to pictures, and the folder that it comes from."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import muse
from muse.checkpoint import CheckpointError
from muse.images import to_tensor
from muse.models.text_encoder import TextEncoder
from muse.models.transformer import MaskedTransformer
from muse.pipeline import SHIPPED, Muse, find_model, guided_predict
from muse.sampling import EditOptions, SamplingOptions
from muse.shapes import Step

PROMPTS = ["a red apple", "two blue dog on the apple , 3d style", "the dog"]
NEGATIVES = ["blue", "a dog of the two", "3d"]
SEEDS = [3, 1, 4]


def pixels(images):
    return [image.tobytes() for image in images]


@pytest.fixture
def rows(tiny_muse):
    """How many grids the base transformer is asked for at each step."""
    seen = []
    handle = tiny_muse.base.register_forward_hook(lambda module, given, logits: seen.append(len(given[0])))
    yield seen
    handle.remove()


@pytest.fixture
def a_step(tiny_muse):
    """Half-drawn tokens of three pictures, in the middle of decoding."""
    tokens = torch.randint(0, 65, (3, 64), generator=torch.Generator().manual_seed(0))
    return tokens, tokens == tiny_muse.base.config.mask_id, Step(3, 6)


# -- the text encoder ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tiny_t5", "tiny_bert"])
def test_a_short_prompt_beside_a_long_one_has_the_states_it_has_alone(name, request, tmp_path):
    request.getfixturevalue(name).save(tmp_path)
    encoder = TextEncoder.from_folder(tmp_path)
    states, is_word = encoder(PROMPTS)
    for i, prompt in enumerate(PROMPTS):
        alone, all_words = encoder([prompt])
        num = alone.shape[1]
        assert all_words.all()
        assert is_word[i].tolist() == [True] * num + [False] * (states.shape[1] - num)
        assert (states[i, :num] - alone[0]).abs().max() < 1e-5


def test_an_encoder_that_is_saved_stays_as_it_was_and_comes_back_rounded_to_half(tiny_t5, tmp_path):
    before = {name: tensor.clone() for name, tensor in tiny_t5.encoder.state_dict().items()}
    tiny_t5.save(tmp_path)
    after, loaded = tiny_t5.encoder.state_dict(), TextEncoder.from_folder(tmp_path).encoder.state_dict()
    for name, tensor in before.items():
        assert torch.equal(after[name], tensor)
        assert torch.equal(loaded[name], tensor.half().float())


def test_no_encoder_reads_beyond_its_positions(tiny_bert, tiny_t5):
    assert (tiny_bert.max_words, tiny_t5.max_words) == (64, 77)
    with pytest.raises(ValueError, match="65 sub-words and the text encoder reads at most 64"):
        tiny_bert(["apple " * 64])


@pytest.mark.parametrize("num_layers", [1, 3])
def test_an_encoder_whose_config_has_other_layers_than_its_weights_is_refused(num_layers, tiny_t5, tmp_path):
    # transformers fills what is missing at random, and drops what is too much
    tiny_t5.save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_layers": num_layers}))
    with pytest.raises(ValueError, match="config and weights belong to different models"):
        TextEncoder.from_folder(tmp_path)


def test_a_pickled_encoder_is_never_opened(tiny_t5, tmp_path):
    tiny_t5.save(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(tiny_t5.encoder.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        TextEncoder.from_folder(tmp_path)


# -- drawing ------------------------------------------------------------------------------------------------------


def test_of_some_seeds_the_one_is_chosen_whose_tokens_were_likeliest_as_they_were_drawn(tiny_muse):
    reports, steps = [], []
    options = replace(tiny_muse.defaults, steps=4)
    for seed in range(3, 13):
        tiny_muse.generate([PROMPTS[0]], [seed], negatives=["blue"], options=options, callback=reports.append)
    likelihoods = [float(report.log_probs.mean()) for report in reports[3::4]]
    assert likelihoods[0] < 0  # in nats
    first, second = (3 + likelihoods.index(max(likelihoods[:5])), 8 + likelihoods[5:].index(max(likelihoods[5:])))
    told = {"negatives": ["blue"] * 2, "options": options}
    assert tiny_muse.choose([PROMPTS[0]] * 2, [3, 8], 5, **told, callback=steps.append) == [first, second]
    assert len(steps) == 2 * 4  # ten grids, eight of them side by side
    assert tiny_muse.choose([PROMPTS[0]], [8], 5, negatives=["blue"], options=options) == [second]


def test_a_judge_sees_small_pictures_and_their_prompts_and_its_favourite_is_chosen(cascade):
    seen = []

    def redness(images, prompts):
        seen.extend(zip([image.size for image in images], prompts, strict=True))
        return torch.tensor([float(to_tensor(image)[0].mean()) for image in images])

    drawn = cascade.generate([PROMPTS[1]] * 4, [5, 6, 7, 8], size="low")
    favourite = max(range(4), key=lambda i: float(to_tensor(drawn[i])[0].mean()))
    assert cascade.choose([PROMPTS[0], PROMPTS[1]], [1, 5], 4, judge=redness)[1] == 5 + favourite
    assert seen == [(cascade.low_size, PROMPTS[0])] * 4 + [(cascade.low_size, PROMPTS[1])] * 4


@pytest.mark.parametrize("as_scores", [list, np.array, torch.tensor], ids=["list", "numpy", "tensor"])
def test_a_judge_may_give_its_scores_as_any_list_of_numbers(as_scores, tiny_muse, without_type_checks):
    def last_is_best(images, prompts):
        return as_scores([float(i) for i in range(len(images))])

    assert tiny_muse.choose(["a fox"], [3], 4, judge=last_is_best) == [6]
    (random,) = tiny_muse.choose(["a fox"], None, 2, judge=last_is_best)
    assert random >= 1


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([1.0], r"^the judge gave \[1.0\] for 3 pictures; give a finite number for each$"),
        ([1.0, float("nan"), 2.0], r"^the judge gave \[1.0, nan, 2.0\] for 3 pictures; give"),
        ([[1.0], [2.0], [3.0]], r"for 3 pictures; give a finite number for each$"),
        (2.0, r"^the judge gave 2.0 for 3 pictures; give"),
        (None, r"^the judge gave no scores \(.*\); give a number for each picture$"),
        (["a", "b", "c"], r"^the judge gave no scores"),
    ],
)
def test_scores_that_are_not_one_number_a_picture_are_refused(scores, message, tiny_muse, without_type_checks):
    with pytest.raises(ValueError, match=message):
        tiny_muse.choose(["a fox"], [3], 3, judge=lambda images, prompts: scores)


def test_one_seed_is_no_choice_and_what_is_no_number_of_them_is_refused(tiny_muse, rows):
    assert tiny_muse.choose(PROMPTS, SEEDS, 1) == SEEDS
    assert rows == []
    for wrong in (0, 1001, True):
        with pytest.raises(ValueError, match=r"best_of is .*; give a whole number from 1 to 1,000"):
            tiny_muse.choose(PROMPTS, SEEDS, wrong)
    with pytest.raises(ValueError, match="4 are tried from it on; the largest is 9223372036854775807"):
        tiny_muse.choose(["a"], [2**63 - 3], 4)


def test_every_prompt_gives_a_picture_of_the_models_size(tiny_muse):
    assert tiny_muse.size == (128, 128)
    assert [image.size for image in tiny_muse.generate(PROMPTS)] == [(128, 128)] * 3


def test_the_same_seed_gives_the_same_picture_and_another_seed_another(tiny_muse):
    first, again, other = (tiny_muse.generate(PROMPTS, seeds) for seeds in (SEEDS, SEEDS, [5, 6, 7]))
    assert pixels(first) == pixels(again)
    assert not set(pixels(first)) & set(pixels(other))


@pytest.mark.parametrize("negatives", [None, NEGATIVES])
@pytest.mark.parametrize("sampler", ["confidence", "halton"])
def test_a_picture_of_a_batch_is_the_picture_drawn_alone(sampler, negatives, tiny_muse, alike):
    options = replace(tiny_muse.defaults, sampler=sampler)
    together = tiny_muse.generate(PROMPTS, SEEDS, negatives=negatives, options=options)
    for i, prompt in enumerate(PROMPTS):
        negative = negatives and negatives[i : i + 1]
        (alone,) = tiny_muse.generate([prompt], SEEDS[i : i + 1], negatives=negative, options=options)
        assert alike(alone, together[i])


OTHERWISE = {
    "steps": 3,
    "guidance": 8.0,
    "guidance_ramp": "constant",
    "sampler": "halton",
    "temperature": 0.1,
    "top_k": 2,
    "choice_noise": 0.0,
    "remask": 0.5,
    "refresh": 1,
}


@pytest.mark.parametrize("name", [field.name for field in fields(SamplingOptions)])
def test_every_option_is_seen_in_the_picture(name, tiny_muse):
    changed = tiny_muse.generate(PROMPTS, SEEDS, options=replace(tiny_muse.defaults, **{name: OTHERWISE[name]}))
    assert pixels(changed) != pixels(tiny_muse.generate(PROMPTS, SEEDS))


def test_prompts_that_were_read_before_draw_as_prompts_do(tiny_muse):  # aMUSEd: crashes on len(None)
    states = tiny_muse.text_encoder([*PROMPTS, *NEGATIVES])
    with_negatives = tiny_muse.generate(PROMPTS, SEEDS, negatives=NEGATIVES)
    assert pixels(tiny_muse.generate_from_states(*states, SEEDS)) == pixels(with_negatives)
    states = tiny_muse.text_encoder(PROMPTS)
    assert pixels(tiny_muse.generate_from_states(*states, SEEDS)) == pixels(tiny_muse.generate(PROMPTS, SEEDS))
    with pytest.raises(ValueError, match="states of 3 texts came for 2 seeds"):
        tiny_muse.generate_from_states(*states, [1, 2])


@torch.no_grad()
def test_guidance_zero_is_the_plain_conditional_model_and_costs_half(tiny_muse, a_step, rows):
    text, is_word = tiny_muse.text_encoder(PROMPTS)
    predict = guided_predict(tiny_muse.base, text, is_word, 3, SamplingOptions(guidance=0.0))
    assert torch.equal(predict(*a_step), tiny_muse.base(a_step[0], tiny_muse.base.read(text, is_word)))
    for options, wanted in [
        (SamplingOptions(steps=4, guidance=0.0), [1] * 4),
        (SamplingOptions(steps=4, guidance=2.0, guidance_ramp="constant", refresh=1), [2] * 4),
        (SamplingOptions(steps=4, guidance=2.0, guidance_ramp="linear", refresh=1), [1, 2, 2, 2]),
    ]:
        rows.clear()
        tiny_muse.generate(PROMPTS, SEEDS, negatives=NEGATIVES if options.guidance else None, options=options)
        assert rows == [num for num in wanted for _ in PROMPTS]  # on a processor each picture by itself


@torch.no_grad()
@pytest.mark.parametrize("negatives", [None, NEGATIVES])
def test_guidance_leads_away_from_no_text_or_from_the_negative_prompt_by_the_papers_formula(
    negatives, tiny_muse, a_step
):
    base, encode = tiny_muse.base, tiny_muse.text_encoder
    options = SamplingOptions(guidance=3.0, guidance_ramp="constant")
    text, is_word = encode([*PROMPTS, *(negatives or [])])
    guided = guided_predict(base, text, is_word, 3, options)(*a_step)
    conditional = base(a_step[0], base.read(*encode(PROMPTS)))
    unconditional = base(a_step[0], base.read(*encode(negatives)) if negatives else None)
    assert (guided - (4 * conditional - 3 * unconditional)).abs().max() < 1e-3 * guided.abs().max()
    assert (guided - conditional).abs().max() > 0.1


def test_a_negative_prompt_changes_the_picture(tiny_muse):  # muse-maskgit-pytorch: raises TypeError
    plain = tiny_muse.generate(PROMPTS, SEEDS)
    assert not set(pixels(plain)) & set(pixels(tiny_muse.generate(PROMPTS, SEEDS, negatives=NEGATIVES)))


def test_every_step_is_seen_and_its_preview_is_grey_where_tokens_are_hidden(tiny_muse):
    reports = []
    images = tiny_muse.generate(PROMPTS, SEEDS, callback=reports.append)
    assert [report.step for report in reports] == [Step(i, 6) for i in range(6)]
    first, last = tiny_muse.preview(reports[0]), tiny_muse.preview(reports[-1])
    assert pixels(last.images) == pixels(images)
    corners = [(16 * (i % 8) + 7, 16 * (i // 8) + 7) for i in range(64)]
    is_grey = [first.images[0].getpixel(corner) == (224, 224, 224) for corner in corners]
    assert is_grey == reports[0].is_hidden[0].tolist()


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (([""], [1], None), "prompt is empty"),
        (([" \n"], [1], None), "prompt is empty"),
        ((["a"], [1], [""]), "negative prompt is empty; .* or leave it out"),
        ((["apple " * 10_000], [1], None), "has 10,001 sub-words and the text encoder reads at most 77; shorten it"),
        ((["a"], [1], ["apple " * 10_000]), "has 10,001 sub-words"),
        (([], [], None), "no prompt came"),
        (("apple", [1], None), "prompts is one string; give a list"),
        ((["a", "dog"], [1], None), "1 seeds came for 2 prompts"),
        ((["a"], [1], ["b", "c"]), "2 negative prompts came for 1 prompts"),
        ((["a"], [-1], None), "seed is -1; give a whole number from 0"),
        ((["a"], [2**63], None), "seed is 9223372036854775808; give"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_one_sentence(request_, message, tiny_muse):
    prompts, seeds, negatives = request_
    with pytest.raises(ValueError, match=message) as error:
        tiny_muse.generate(prompts, seeds, negatives=negatives)
    assert "\n" not in str(error.value)


IMAGE = Image.new("RGB", (128, 128), "orange")
AS_A_DICT = {"steps": 2}


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda muse: muse.generate(None), "prompts is of type NoneType; give a list of prompts"),
        (lambda muse: muse.generate(3), "prompts is of type int; give a list of prompts"),
        (lambda muse: muse.generate(prompt for prompt in PROMPTS), "prompts is of type generator; give a list"),
        (lambda muse: muse.generate(np.array("a fox")), "prompts is of type ndarray; give a list of prompts"),
        (lambda muse: muse.generate([b"fox"]), "the prompt is of type bytes; give it as a string"),
        (lambda muse: muse.generate([None]), "the prompt is of type NoneType; give it as a string"),
        (lambda muse: muse.generate([["fox"]]), "the prompt is of type list; give it as a string"),
        (lambda muse: muse.generate(["a"], 1), "seeds is of type int; give a list of seeds, even for a single one"),
        (lambda muse: muse.generate(["a"], torch.Generator()), "seeds is of type Generator; give a list of seeds"),
        (lambda muse: muse.generate(["a"], [True]), "seed is True; give a whole number from 0"),
        (lambda muse: muse.generate(["a"], [1.0]), "seed is 1.0; give a whole number from 0"),
        (lambda muse: muse.generate(["a"], [1], negatives="a"), "negatives is one string; give a list of negatives"),
        (lambda muse: muse.choose(["a"], [1], 2, negatives="a"), "negatives is one string"),
        (lambda muse: muse.upscale([IMAGE], ["a"], [1], negatives="a"), "negatives is one string"),
        (
            lambda muse: muse.generate(["a"], [1], size=np.zeros((9, 9))),
            "size is of type ndarray; give 'low' or 'high'",
        ),
        (
            lambda muse: muse.generate(["a"], [1], options=AS_A_DICT),
            "^options is of type dict; give muse.SamplingOptions",
        ),
        (lambda muse: muse.generate(["a"], [1], options={}), "^options is of type dict"),
        (lambda muse: muse.generate(["a"], [1], options=EditOptions()), "^options is of type EditOptions; give"),
        (lambda muse: muse.generate(["a"], [1], superres_options=AS_A_DICT), "superres_options is of type dict; give"),
        (
            lambda muse: muse.generate_from_states(*muse.text_encoder(["a"]), [1], superres_options=AS_A_DICT),
            "superres_options is of type dict; give",
        ),
        (lambda muse: muse.generate_from_states(*muse.text_encoder(["a"]), 1), "seeds is of type int"),
        (lambda muse: muse.choose(["a"], [1], 1, options=AS_A_DICT), "^options is of type dict; give"),
        (lambda muse: muse.upscale([IMAGE], ["a"], [1], options=EditOptions()), "^options is of type EditOptions"),
        (lambda muse: muse.upscale(IMAGE, ["a"], [1]), "images is of type Image; give a list of images"),
        (
            lambda muse: muse.upscale(["a.png"], ["a"], [1]),
            "the picture is of type str; give one of PIL, as muse.images",
        ),
        (lambda muse: muse.to_tokens([np.zeros((128, 128, 3), np.uint8)]), "the picture is of type ndarray; give one"),
        (lambda muse: muse.to_tokens([]), "at least one picture is wanted and none came"),
        (lambda muse: muse.reword(None), "the prompt is of type NoneType; give it as a string"),
        (lambda muse: muse.reword(["a fox"]), "the prompt is of type list; give it as a string"),
        (lambda muse: muse.nearest_names("a fox", -1), "num is -1; give a whole number of at least 0"),
        (lambda muse: muse.nearest_names(None), "the text is of type NoneType"),
        (lambda muse: muse.text_encoder("a fox"), "prompts is one string; give a list of prompts"),
        (lambda muse: muse.text_encoder.read_each("a fox"), "prompts is one string; give a list of prompts"),
    ],
)
def test_what_is_of_another_kind_is_refused_in_one_sentence_before_anything_is_drawn(
    ask, message, cascade, monkeypatch, without_type_checks
):
    for draw in ("draw_base", "draw_superres"):
        monkeypatch.setattr(Muse, draw, None)
    with pytest.raises(ValueError, match=message) as error:
        ask(cascade)
    assert "\n" not in str(error.value)


def test_numbers_of_numpy_are_numbers(tiny_muse, without_type_checks):
    given = {"steps": np.int64(3), "guidance": np.float32(2), "top_k": np.int8(5), "remask": np.float16(0.5)}
    options = SamplingOptions(**given)
    assert [type(getattr(options, name)) for name in given] == [int, float, int, float]
    plain = SamplingOptions(steps=3, guidance=2.0, top_k=5, remask=0.5)
    seeds = np.array([5, 2**62])
    assert pixels(tiny_muse.generate(PROMPTS[:2], seeds, options=options)) == pixels(
        tiny_muse.generate(PROMPTS[:2], [5, 2**62], options=plain)
    )
    chosen = tiny_muse.choose(PROMPTS[:1], seeds[:1], np.int8(3), options=options)
    assert chosen == tiny_muse.choose(PROMPTS[:1], [5], 3, options=plain)
    assert type(chosen[0]) is int


@pytest.mark.parametrize("default", [torch.float64, torch.bfloat16])
def test_a_picture_is_the_same_whatever_the_default_type_of_torch_is(default, tiny_muse):
    def draw():
        options = replace(tiny_muse.defaults, remask=0.2)
        return [
            *tiny_muse.generate(["a fox"], [1], options=options),
            *tiny_muse.edit(IMAGE, "a fox", [1], options=EditOptions(iterations=3)),
            *tiny_muse.variations(IMAGE, 0.5, [1]),
        ]

    plain = pixels(draw())
    torch.set_default_dtype(default)
    try:
        assert pixels(draw()) == plain
    finally:
        torch.set_default_dtype(torch.float32)


def test_the_largest_seed_draws(tiny_muse):
    assert len(tiny_muse.generate(["a"], [2**63 - 1])) == 1


# -- folders ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tiny_t5", "tiny_bert"])
def test_what_is_saved_and_loaded_gives_equal_logits_and_pictures(name, request, tiny_muse, a_step, tmp_path):
    encoder = request.getfixturevalue(name)
    first = Muse(encoder, tiny_muse.vqgan, tiny_muse.base, name="first", defaults=SamplingOptions(steps=2))
    first.save_pretrained(tmp_path / "first")
    second = Muse.from_pretrained(tmp_path / "first", precision="float32")  # its text encoder is rounded
    second.save_pretrained(tmp_path / "second")
    third = Muse.from_pretrained(str(tmp_path / "second"), precision="float32")
    assert (third.name, third.defaults) == ("first", SamplingOptions(steps=2))
    text, is_word = second.text_encoder(PROMPTS)
    assert torch.equal(third.text_encoder(PROMPTS)[0], text)
    with torch.no_grad():
        logits = [each.base(a_step[0], each.base.read(text, is_word)) for each in (first, second, third)]
    assert torch.equal(logits[0], logits[1])
    assert torch.equal(logits[1], logits[2])
    assert pixels(third.generate(PROMPTS, SEEDS)) == pixels(second.generate(PROMPTS, SEEDS))


def change_json(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.mark.parametrize("part", ["model_index.json", "text_encoder", "vqgan", "base"])
def test_a_missing_part_is_named(part, own_folder):
    (own_folder / part).rename(own_folder / "elsewhere")
    with pytest.raises(CheckpointError, match=rf"{part}.* is missing; this folder is no whole checkpoint"):
        Muse.from_pretrained(own_folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_damaged_text_encoder_is_refused_in_one_sentence(name, own_folder):
    path = own_folder / "text_encoder" / name
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"text_encoder(/config.json)? is damaged") as error:
        Muse.from_pretrained(own_folder)
    assert "\n" not in str(error.value)


def test_the_vqgan_of_another_model_is_refused(own_folder):
    change_json(own_folder / "base" / "config.json", vqgan_fingerprint="0123456789ab")
    with pytest.raises(CheckpointError, match="trained on the tokens of VQGAN 0123456789ab and this is VQGAN"):
        Muse.from_pretrained(own_folder)


def test_parts_of_other_sizes_are_refused(tiny_muse):
    with torch.device("meta"):
        more_codes, more_text = (
            MaskedTransformer(replace(tiny_muse.base.config, vqgan_fingerprint=None, **change))
            for change in ({"num_codes": 65}, {"text_dim": 33})
        )
    with pytest.raises(CheckpointError, match="the VQGAN has 64 codes and the base transformer was made for 65"):
        Muse(tiny_muse.text_encoder, tiny_muse.vqgan, more_codes)
    with pytest.raises(CheckpointError, match="states of 32 numbers and the base transformer reads 33"):
        Muse(tiny_muse.text_encoder, tiny_muse.vqgan, more_text)


@pytest.mark.parametrize("defaults", [{"steps": 0}, {"steps": 10**9}, {"guidance": -1.0}, {"strength": 1}])
def test_defaults_that_cannot_be_used_are_refused(defaults, own_folder):
    change_json(own_folder / "model_index.json", defaults=defaults)
    with pytest.raises(CheckpointError, match="has defaults that cannot be used"):
        Muse.from_pretrained(own_folder)


@pytest.mark.parametrize("name", ["unknown", "", "a b", "../x/y", "./no/folder", "emoji.png", "/nowhere", "a" * 5000])
def test_an_unknown_model_is_refused_with_what_to_give(name):
    with pytest.raises(CheckpointError, match=r"there is no model .*; give a folder, a shipped model"):
        Muse.from_pretrained(name)


def test_a_hub_model_that_cannot_be_had_is_refused():
    with pytest.raises(CheckpointError, match="'nobody/nothing' is no folder here and the hub did not give it"):
        Muse.from_pretrained("nobody/nothing")


def test_a_folder_needs_no_network_even_where_the_hub_is_on(tiny_folder):
    code = f"""
import socket
def refuse(*arguments, **options):
    raise SystemExit("the network was touched")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
from muse import Muse
muse = Muse.from_pretrained({str(tiny_folder)!r})
print(len(muse.generate(["a red apple"], negatives=["dog"])))
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    environment["PYTHONPATH"] = str(Path(muse.__file__).parents[1])
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")


def test_a_negative_prompt_without_guidance_is_refused_as_it_would_do_nothing(tiny_muse):
    free = SamplingOptions(steps=2, guidance=0.0)
    with pytest.raises(ValueError, match="guidance is 0, at which negative prompts do nothing; give guidance 1"):
        tiny_muse.generate(["a fox"], [1], negatives=["a red fox"], options=free)
    assert len(tiny_muse.generate(["a fox"], [1], options=free)) == 1
    picture = Image.new("RGB", (128, 128))
    with pytest.raises(ValueError, match="guidance is 0"):
        tiny_muse.edit(picture, "a fox", [1], negative="a red fox", options=EditOptions(iterations=2, guidance=0.0))


def test_a_folder_without_a_model_hides_none_that_ships(tmp_path, monkeypatch, tiny_folder):
    monkeypatch.chdir(tmp_path)
    Path("emoji").mkdir()
    assert find_model("emoji") == SHIPPED / "emoji"
    assert find_model("./emoji") == Path("emoji")
    shutil.copytree(tiny_folder, "emoji", dirs_exist_ok=True)
    assert find_model("emoji") == Path("emoji")


@pytest.mark.parametrize("device", ["cuda:77", "tpu"])
def test_a_device_that_is_not_there_is_told_in_one_sentence(device, tiny_folder, tiny_muse):
    with pytest.raises(ValueError, match=rf"^device '{device}' cannot be used \(.*\); give 'cpu', or none$"):
        Muse.from_pretrained(tiny_folder, device)
    with pytest.raises(ValueError, match=rf"^device '{device}' cannot be used"):
        tiny_muse.to(device)


def test_a_model_is_moved_to_a_device_and_to_no_type(tiny_muse, without_type_checks):
    with pytest.raises(
        ValueError, match="the device is of type dtype; give 'cpu' or 'cuda', and a precision to draw in"
    ):
        tiny_muse.to(torch.bfloat16)
    assert {part.dtype for module in tiny_muse.modules for part in module.parameters()} == {torch.float32}


@pytest.mark.parametrize("wrong", [torch.uint8, torch.int64, torch.complex64, "float16"])
@pytest.mark.parametrize("name", ["dtype", "text_dtype"])
def test_weights_are_saved_in_no_type_that_would_break_them(name, wrong, tiny_muse, tmp_path, without_type_checks):
    with pytest.raises(ValueError, match=rf"^{name} is .*; give torch.int8 or one of torch's types of fractions"):
        tiny_muse.save_pretrained(tmp_path / "model", **{name: wrong})
    assert not (tmp_path / "model").exists()


def test_no_seeds_are_told_as_such(tiny_muse):
    with pytest.raises(ValueError, match="no seed came"):
        tiny_muse.edit(Image.new("RGB", (128, 128)), "a dog", seeds=[])
