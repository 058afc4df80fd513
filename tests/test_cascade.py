"""`Muse` with super-resolution: from texts to low-resolution tokens to high-resolution ones."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from PIL import Image

from muse.checkpoint import CheckpointError
from muse.models.superres import SuperResTransformer
from muse.pipeline import SUPERRES_DEFAULTS, Muse, check_size, superres_predict
from muse.sampling import SamplingOptions
from muse.shapes import Step

PROMPTS = ["a red apple", "two blue dog on the apple , 3d style", "the dog"]
NEGATIVES = ["blue", "a dog of the two", "3d"]
SEEDS = [3, 1, 4]


def pixels(images):
    return [image.tobytes() for image in images]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def low():
    """Low-resolution tokens of three pictures."""
    return torch.randint(64, (3, 64), generator=seeded(1))


@pytest.fixture
def texts(cascade):
    return cascade.text_encoder(PROMPTS)


@pytest.fixture
def a_step(cascade):
    """Half-drawn high-resolution tokens of three pictures, in the middle of decoding."""
    tokens = torch.randint(49, (3, 256), generator=seeded())
    return tokens, tokens == cascade.superres.config.mask_id, Step(3, 6)


@pytest.fixture
def rows(cascade):
    """How many grids the super-resolution transformer is asked for at each step."""
    seen = []
    handle = cascade.superres.register_forward_hook(lambda module, given, logits: seen.append(len(given[0])))
    yield seen
    handle.remove()


# -- drawing ------------------------------------------------------------------------------------------------------


def test_a_cascade_draws_the_large_pictures_and_stops_at_the_small_ones_where_it_is_asked_to(cascade, tiny_muse):
    assert (cascade.size, cascade.low_size) == ((256, 256), (128, 128))
    high, same = cascade.generate(PROMPTS, SEEDS), cascade.generate(PROMPTS, SEEDS, size="high")
    assert [image.size for image in high] == [(256, 256)] * 3
    assert pixels(high) == pixels(same)
    assert pixels(cascade.generate(PROMPTS, SEEDS, size="low")) == pixels(tiny_muse.generate(PROMPTS, SEEDS))


def test_what_is_drawn_is_the_super_resolution_of_what_the_base_draws(cascade, texts):
    low = cascade.draw_base(*texts, SEEDS, cascade.defaults)
    high = cascade.draw_superres(low, *texts, SEEDS, cascade.superres_defaults)
    assert low.shape == (3, 64)
    assert high.shape == (3, 256)
    assert high.max() < 48
    assert pixels(cascade.to_large_images(high)) == pixels(cascade.generate(PROMPTS, SEEDS))


def test_without_options_the_base_takes_24_steps_and_super_resolution_8():
    assert (SamplingOptions().steps, SUPERRES_DEFAULTS.steps) == (24, 8)


def test_the_same_seed_gives_the_same_large_picture_and_another_seed_another(cascade):
    first, again, other = (cascade.generate(PROMPTS, seeds) for seeds in (SEEDS, SEEDS, [5, 6, 7]))
    assert pixels(first) == pixels(again)
    assert not set(pixels(first)) & set(pixels(other))


@pytest.mark.parametrize("negatives", [None, NEGATIVES])
def test_a_large_picture_of_a_batch_is_the_picture_drawn_alone(negatives, cascade, alike):
    together = cascade.generate(PROMPTS, SEEDS, negatives=negatives)
    for i, prompt in enumerate(PROMPTS):
        (alone,) = cascade.generate([prompt], SEEDS[i : i + 1], negatives=negatives and negatives[i : i + 1])
        assert alike(alone, together[i])


def test_the_two_stages_draw_with_other_noise(cascade, texts, low, monkeypatch):
    seeds = []
    monkeypatch.setattr(
        "muse.pipeline.generators_for", lambda given: seeds.append(given) or [seeded(seed) for seed in given]
    )
    cascade.draw_base(*texts, SEEDS, cascade.defaults)
    cascade.draw_superres(low, *texts, SEEDS, cascade.superres_defaults)
    noise = [[torch.rand(4, generator=seeded(seed)).tolist() for seed in each] for each in seeds]
    assert len({tuple(each) for stage in noise for each in stage}) == 6


@pytest.mark.parametrize(
    ("ramp", "refresh", "wanted"),
    [
        ("constant", 1, [2] * 8),
        ("linear", 1, [1] + [2] * 7),
        ("constant", 4, [2, 1, 1, 1, 2, 2, 2, 2]),
        ("linear", 4, [1, 2, 1, 1, 2, 2, 2, 2]),
    ],
)
def test_8_super_resolution_steps_are_8_forward_passes_of_both_branches_but_those_that_are_reused(
    ramp, refresh, wanted, cascade, rows
):
    options = SamplingOptions(steps=8, guidance=2.0, guidance_ramp=ramp, refresh=refresh)
    for negatives in (None, NEGATIVES):
        rows.clear()
        cascade.generate(PROMPTS, SEEDS, negatives=negatives, superres_options=options)
        # Both branches go in one batch, on a processor those of each picture by themselves; at the first step of a ramp
        # the scale is 0 and needs one only.
        assert rows == [num for num in wanted for _ in PROMPTS]


def test_low_resolution_tokens_and_text_are_read_once_for_all_steps(cascade, texts, low, monkeypatch):
    reads = []
    read = SuperResTransformer.read
    monkeypatch.setattr(SuperResTransformer, "read", lambda *given: reads.append(1) or read(*given))
    cascade.draw_superres(low, *texts, SEEDS, SamplingOptions(steps=8))
    assert len(reads) == len(SEEDS)  # on a processor each picture's by themselves


@pytest.mark.parametrize("change", [{"steps": 3}, {"guidance": 8.0}, {"temperature": 0.1}, {"sampler": "halton"}])
def test_options_of_super_resolution_change_the_large_picture_and_not_the_small_one(change, cascade):
    options = replace(cascade.superres_defaults, **change)
    reports = ([], [])
    plain = cascade.generate(PROMPTS, SEEDS, callback=reports[0].append)
    changed = cascade.generate(PROMPTS, SEEDS, superres_options=options, callback=reports[1].append)
    assert pixels(changed) != pixels(plain)
    last = [[report for report in each if report.stage == "base"][-1].tokens for each in reports]
    assert last[0].equal(last[1])


@torch.no_grad()
def test_guidance_zero_is_the_plain_conditional_model_with_its_low_resolution_tokens(cascade, texts, low, a_step):
    superres = cascade.superres
    text, is_word = texts
    predict = superres_predict(superres, low, text, is_word, SamplingOptions(guidance=0.0))
    logits = superres(a_step[0], superres.read(low, text, is_word))
    assert predict(*a_step).allclose(logits, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("negatives", [None, NEGATIVES])
def test_both_branches_of_guidance_keep_the_low_resolution_tokens(negatives, cascade, low, a_step):
    """And it leads away from no text, or from the negative prompt, by the paper's formula."""
    superres, encode = cascade.superres, cascade.text_encoder
    options = SamplingOptions(guidance=3.0, guidance_ramp="constant")
    text, is_word = encode([*PROMPTS, *(negatives or [])])
    guided = superres_predict(superres, low, text, is_word, options)(*a_step)
    conditional = superres(a_step[0], superres.read(low, *encode(PROMPTS)))
    unconditional = superres(a_step[0], superres.read(low, *encode(negatives)) if negatives else superres.read(low))
    assert (guided - (4 * conditional - 3 * unconditional)).abs().max() < 1e-3 * guided.abs().max()
    assert (guided - conditional).abs().max() > 0.1


@torch.no_grad()
@pytest.mark.parametrize("guidance", [0.0, 3.0])
def test_shuffling_the_low_resolution_tokens_changes_the_logits_in_sampling(guidance, cascade, texts, low, a_step):
    """Muse-maskgit-pytorch: trained unconditioned, sampled conditioned."""
    shuffled = low[:, torch.randperm(64, generator=seeded())]
    options = SamplingOptions(guidance=guidance, guidance_ramp="constant")
    text, is_word = texts
    logits = [superres_predict(cascade.superres, each, text, is_word, options)(*a_step) for each in (low, shuffled)]
    assert ((logits[0] - logits[1]).abs().amax(dim=(1, 2)) > 0.1).all()


@pytest.fixture
def upsampling_cascade(cascade, tiny_vqgan, tiny_vqgan_superres):
    """The same with a super-resolution transformer that reads nothing of the tokens but the upsampled picture."""
    superres = SuperResTransformer(replace(cascade.superres.config, upsampled_dim=8))
    superres.load_state_dict(cascade.superres.state_dict(), strict=False)
    assert superres.project_upsampled is not None
    torch.nn.init.normal_(superres.project_upsampled.weight, generator=seeded(2))
    torch.nn.init.zeros_(superres.embed_low.weight)
    parts = (cascade.text_encoder, tiny_vqgan, cascade.base, superres, tiny_vqgan_superres)
    return Muse(*parts, defaults=cascade.defaults, superres_defaults=cascade.superres_defaults)


@pytest.mark.parametrize("guidance", [0.0, 3.0])
def test_the_upsampled_picture_of_the_low_resolution_tokens_reaches_super_resolution(
    guidance, upsampling_cascade, cascade, texts, low, tmp_path
):
    options = replace(SUPERRES_DEFAULTS, guidance=guidance)

    def drawn(muse, tokens):
        return muse.draw_superres(tokens, *texts, SEEDS, options)

    changed = low.clone()
    changed[1] = low[1].flip(0)
    plain, other = drawn(upsampling_cascade, low), drawn(upsampling_cascade, changed)
    assert not plain[1].equal(other[1])
    assert plain[[0, 2]].equal(other[[0, 2]])
    upsampling_cascade.save_pretrained(tmp_path)
    assert drawn(Muse.from_pretrained(tmp_path, "cpu", "float32"), low).equal(plain)
    # Without it, nothing is left of the tokens.
    torch.nn.init.zeros_(upsampling_cascade.superres.project_upsampled.weight)
    assert drawn(upsampling_cascade, low).equal(drawn(upsampling_cascade, changed))


def test_other_low_resolution_tokens_are_another_large_picture(cascade, texts, low):
    tokens = [cascade.draw_superres(each, *texts, SEEDS, SUPERRES_DEFAULTS) for each in (low, low.flip(1))]
    assert not tokens[0].equal(tokens[1])


def test_a_negative_prompt_reaches_super_resolution(cascade, low):
    states = [cascade.text_encoder(texts) for texts in (PROMPTS, [*PROMPTS, *NEGATIVES])]
    tokens = [cascade.draw_superres(low, *each, SEEDS, SUPERRES_DEFAULTS) for each in states]
    assert not tokens[0].equal(tokens[1])


@pytest.mark.parametrize("stage", ["base", "superres"])
def test_given_tokens_stay_and_hidden_ones_are_drawn(stage, cascade, texts, low):
    num, mask_id = (64, 64) if stage == "base" else (256, 48)
    given = torch.randint(mask_id, (3, num), generator=seeded(5))
    is_hidden = torch.rand(3, num, generator=seeded(6)) < 0.4
    start = given.masked_fill(is_hidden, mask_id)
    if stage == "base":
        drawn = cascade.draw_base(*texts, SEEDS, cascade.defaults, start=start)
    else:
        drawn = cascade.draw_superres(low, *texts, SEEDS, SUPERRES_DEFAULTS, start=start)
    assert drawn[~is_hidden].equal(given[~is_hidden])
    assert drawn.max() < mask_id
    assert not drawn.equal(given)


def test_every_step_of_both_stages_is_seen_and_its_preview_is_as_large_as_its_stage(cascade):
    reports = []
    images = cascade.generate(PROMPTS, SEEDS, callback=reports.append)
    assert [(report.stage, report.step) for report in reports] == [
        *(("base", Step(i, 6)) for i in range(6)),
        *(("superres", Step(i, 4)) for i in range(4)),
    ]
    assert pixels(cascade.preview(reports[-1]).images) == pixels(images)
    assert pixels(cascade.preview(reports[5]).images) == pixels(cascade.generate(PROMPTS, SEEDS, size="low"))
    first = cascade.preview(reports[6]).images[0]
    corners = [(16 * (i % 16) + 7, 16 * (i // 16) + 7) for i in range(256)]
    assert [first.getpixel(corner) == (224, 224, 224) for corner in corners] == reports[6].is_hidden[0].tolist()


# -- given pictures -----------------------------------------------------------------------------------------------


def picture(width: int = 128, height: int = 128, mode: str = "RGB") -> Image.Image:
    size = (height, width, len(mode)) if mode != "L" else (height, width)
    values = torch.randint(256, size, dtype=torch.uint8, generator=seeded(3))
    return Image.fromarray(values.numpy(), mode)


def test_a_given_picture_is_enlarged_on_its_own_low_resolution_tokens(cascade, texts, monkeypatch):
    image, seen = picture(), []
    draw = Muse.draw_superres
    monkeypatch.setattr(Muse, "draw_superres", lambda self, low, *rest: seen.append(low) or draw(self, low, *rest))
    large = cascade.upscale([image] * 3, PROMPTS, SEEDS)
    assert [each.size for each in large] == [(256, 256)] * 3
    assert seen[0].equal(cascade.to_tokens([image] * 3))
    assert pixels(large) == pixels(cascade.upscale([image] * 3, PROMPTS, SEEDS))
    assert pixels(large) != pixels(cascade.upscale([image] * 3, PROMPTS, SEEDS, negatives=NEGATIVES))
    assert pixels(large) != pixels(cascade.upscale([image.rotate(90)] * 3, PROMPTS, SEEDS))
    free = SamplingOptions(steps=1, guidance=0.0)
    with pytest.raises(ValueError, match="guidance is 0, at which negative prompts do nothing"):
        cascade.upscale([image] * 3, PROMPTS, SEEDS, negatives=NEGATIVES, options=free)


@pytest.mark.parametrize(("width", "height", "mode"), [(640, 640, "RGB"), (31, 31, "L"), (255, 256, "RGBA")])
def test_pictures_of_any_size_and_mode_are_enlarged(width, height, mode, cascade):
    image = picture(width, height, mode)
    assert cascade.upscale([image], ["a dog"], [1])[0].size == (256, 256)


def test_what_is_transparent_is_read_as_white(cascade):
    clear = Image.new("RGBA", (128, 128), (255, 0, 0, 0))
    assert cascade.to_tokens([clear]).equal(cascade.to_tokens([Image.new("RGB", (128, 128), "white")]))
    assert not cascade.to_tokens([clear]).equal(cascade.to_tokens([Image.new("RGB", (128, 128), "red")]))


def test_a_picture_of_another_shape_is_refused_in_one_sentence(cascade):
    with pytest.raises(ValueError, match=r"^the picture has 200 x 100 pixels and the model draws 128 x 128; crop it"):
        cascade.upscale([picture(200, 100)], ["a dog"], [1])


def test_there_is_one_picture_for_each_prompt(cascade):
    with pytest.raises(ValueError, match=r"^1 pictures came for 2 prompts; give one for each$"):
        cascade.upscale([picture()], ["a dog", "a apple"], [1, 2])


# -- what does not fit --------------------------------------------------------------------------------------------


def test_a_model_without_super_resolution_says_so_in_one_sentence(tiny_muse, texts, low):
    message = "^model 'tiny' has no super-resolution; take one that has, or size 'low'$"
    for ask in (
        lambda: tiny_muse.generate(PROMPTS, SEEDS, size="high"),
        lambda: tiny_muse.upscale([picture()], ["a dog"], [1]),
        lambda: tiny_muse.draw_superres(low, *texts, SEEDS, SUPERRES_DEFAULTS),
        lambda: tiny_muse.to_large_images(low),
    ):
        with pytest.raises(ValueError, match=message):
            ask()


def test_a_size_that_is_none_is_refused(cascade):
    with pytest.raises(ValueError, match=r"^size is 'huge'; give 'low' or 'high', or leave it out$"):
        check_size("huge", cascade)


def test_low_resolution_tokens_that_are_still_hidden_are_refused(cascade, texts, low):
    low[1, 7] = 64
    with pytest.raises(ValueError, match=r"low-resolution tokens hold 64; wanted codes in \[0, 64\): draw hidden"):
        cascade.draw_superres(low, *texts, SEEDS, SUPERRES_DEFAULTS)


@pytest.mark.parametrize("num_texts", [2, 4])
def test_other_numbers_of_texts_are_refused(num_texts, cascade, low):
    states = cascade.text_encoder(["a dog"] * num_texts)
    for draw in (
        lambda: cascade.draw_base(*states, SEEDS, cascade.defaults),
        lambda: cascade.draw_superres(low, *states, SEEDS, SUPERRES_DEFAULTS),
    ):
        with pytest.raises(ValueError, match=f"^states of {num_texts} texts came for 3 seeds; give one for each"):
            draw()


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda text, is_word: (text, is_word[:, :-1]),
            r"is_word is of shape \(3, 9\) for states of shape \(3, 10, 32\); give a flag for each word of each text",
        ),
        (
            lambda text, is_word: (text, is_word[:2]),
            r"is_word is of shape \(2, 10\) for states of shape \(3, 10, 32\); give a flag for each word of each text",
        ),
        (
            lambda text, is_word: (text[..., 0], is_word),
            r"is_word is of shape \(3, 10\) for states of shape \(3, 10\); give a flag for each word of each text",
        ),
        (
            lambda text, is_word: (text[..., 1:], is_word),
            "states of 31 numbers came and the transformer reads 32; give those of the model's own text encoder",
        ),
        (
            lambda text, is_word: (text, is_word.long()),
            r"is_word holds torch.int64; give flags, as is_word.bool\(\)",
        ),
        (
            lambda text, is_word: (text, is_word & torch.tensor([[True], [False], [True]])),
            "a text has no word in is_word; leave such a text out, or read '' by the text encoder",
        ),
    ],
)
def test_states_of_other_words_or_another_width_are_refused(change, sentence, cascade, texts, low):
    text, is_word = change(*texts)
    for draw in (
        lambda: cascade.generate_from_states(text, is_word, SEEDS),
        lambda: cascade.draw_base(text, is_word, SEEDS, cascade.defaults),
        lambda: cascade.draw_superres(low, text, is_word, SEEDS, SUPERRES_DEFAULTS),
    ):
        with pytest.raises(ValueError, match=f"^{sentence}$"):
            draw()


def test_no_seeds_are_refused(cascade, texts):
    with pytest.raises(ValueError, match=r"^there are no seeds; give one for each picture$"):
        cascade.generate_from_states(texts[0][:0], texts[1][:0], [])


def test_half_of_super_resolution_is_refused(cascade):
    parts = cascade.text_encoder, cascade.vqgan, cascade.base
    with pytest.raises(CheckpointError, match=r"^vqgan_superres is missing; super-resolution takes both"):
        Muse(*parts, cascade.superres)
    with pytest.raises(CheckpointError, match=r"^superres is missing; super-resolution takes both"):
        Muse(*parts, None, cascade.vqgan_superres)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_codes": 49}, "high-resolution VQGAN has 48 codes and the super-resolution transformer was made for 49"),
        ({"low_num_codes": 65}, "the VQGAN has 64 codes and the super-resolution transformer was made for 65"),
        ({"text_dim": 33}, "states of 32 numbers and the super-resolution transformer reads 33"),
        ({"upsampled_dim": 9}, "latents of 8 numbers and the super-resolution transformer reads 9"),
        ({"low_height": 4}, "draws 8 x 8 tokens and the super-resolution transformer reads 4 x 8"),
        ({"height": 8}, "makes 8 x 16 tokens of 8 x 8, a picture of another shape"),
    ],
)
def test_parts_of_other_sizes_are_refused(change, message, cascade):
    nobodys = {"vqgan_fingerprint": None, "vqgan_low_fingerprint": None}
    with torch.device("meta"):
        superres = SuperResTransformer(replace(cascade.superres.config, **nobodys, **change))
    with pytest.raises(CheckpointError, match=message) as error:
        Muse(cascade.text_encoder, cascade.vqgan, cascade.base, superres, cascade.vqgan_superres)
    assert "\n" not in str(error.value)


def test_an_attention_that_there_is_not_is_refused(own_cascade):
    change_json(own_cascade / "superres" / "config.json", attention="none")
    with pytest.raises(CheckpointError, match=r"superres/config.json does not describe a SuperResTransformer"):
        Muse.from_pretrained(own_cascade)


# -- folders ------------------------------------------------------------------------------------------------------


def change_json(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_what_is_saved_and_loaded_draws_the_same(cascade, tmp_path):
    cascade.save_pretrained(tmp_path)
    loaded = Muse.from_pretrained(tmp_path, "cpu", "float32")
    assert loaded.superres_defaults == cascade.superres_defaults == SamplingOptions(steps=4, guidance=2.0)
    assert pixels(loaded.generate(PROMPTS, SEEDS)) == pixels(cascade.generate(PROMPTS, SEEDS))


def test_saving_in_half_precision_rounds_the_transformers_and_keeps_the_tokens(cascade, tmp_path):
    cascade.save_pretrained(tmp_path, torch.float16)
    loaded = Muse.from_pretrained(tmp_path, "cpu", "float32")
    parts = loaded.superres, loaded.vqgan_superres
    assert all(part is not None for part in parts)
    rounded, vqgan = (part.state_dict() for part in parts if part is not None)
    weights = cascade.superres.state_dict()
    assert all(rounded[name].equal(weight.half().float()) for name, weight in weights.items())
    assert all(vqgan[name].equal(weight) for name, weight in cascade.vqgan_superres.state_dict().items())


def test_a_base_saved_over_a_cascade_is_a_base(tiny_muse, own_cascade):
    tiny_muse.save_pretrained(own_cascade)
    assert Muse.from_pretrained(own_cascade).size == (128, 128)


@pytest.mark.parametrize("part", ["superres", "vqgan_superres"])
def test_a_missing_part_is_named(part, own_cascade):
    shutil.rmtree(own_cascade / part)
    with pytest.raises(CheckpointError, match=rf"{part}/config.json is missing; this folder is no whole checkpoint$"):
        Muse.from_pretrained(own_cascade)


def test_an_index_with_half_of_super_resolution_is_refused(own_cascade):
    change_json(own_cascade / "model_index.json", parts=["text_encoder", "vqgan", "base", "superres"])
    with pytest.raises(CheckpointError, match="names superres but not vqgan_superres; this folder is no whole"):
        Muse.from_pretrained(own_cascade)


@pytest.mark.parametrize(
    ("field", "name"), [("vqgan_fingerprint", "high-resolution VQGAN"), ("vqgan_low_fingerprint", "VQGAN")]
)
def test_a_cascade_trained_on_another_vqgan_is_refused_in_one_sentence(field, name, own_cascade):
    change_json(own_cascade / "superres" / "config.json", **{field: "0123456789ab"})
    sentence = f"^the super-resolution transformer was trained on the tokens of {name} 0123456789ab and this is {name}"
    with pytest.raises(CheckpointError, match=sentence):
        Muse.from_pretrained(own_cascade)


@pytest.mark.parametrize("defaults", [{"steps": 0}, {"strength": 1}, 7])
def test_defaults_of_super_resolution_that_cannot_be_used_are_refused(defaults, own_cascade):
    change_json(own_cascade / "model_index.json", superres_defaults=defaults)
    with pytest.raises(CheckpointError, match="has defaults that cannot be used"):
        Muse.from_pretrained(own_cascade)
