"""The frozen text encoder, here a tiny BERT; tests/test_pipeline.py has a T5."""

import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

from muse.models.text_encoder import TextEncoder

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "apple", "fox"]


@pytest.fixture
def encoder(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS),
        max_position_embeddings=12,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
    )
    return TextEncoder(BertModel(config), BertTokenizerFast(str(tmp_path / "vocab.txt"), model_max_length=12))


def test_it_stays_frozen_and_in_evaluation_mode(encoder):
    before = encoder(["a red apple"])[0]
    torch.nn.ModuleList([encoder]).train()
    assert encoder.train() is encoder
    assert not any(module.training for module in encoder.modules())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    states, _ = encoder(["a red apple"])
    assert states.equal(before)  # dropout would change them
    assert not states.requires_grad


def test_it_gives_a_state_for_each_word_and_says_which_are_padding(encoder):
    states, is_word = encoder(["a red apple", "fox"])
    assert states.shape == (2, 5, encoder.dim) == (2, 5, 16)
    assert is_word.tolist() == [[True] * 5, [True, True, True, False, False]]


def test_a_prompt_has_the_same_states_beside_a_longer_one(encoder):
    alone, _ = encoder(["fox"])
    beside, is_word = encoder(["a red apple a red apple", "fox"])
    torch.testing.assert_close(beside[1][is_word[1]], alone[0], atol=1e-5, rtol=0)


def test_a_prompt_that_is_too_long_is_refused_with_one_sentence(encoder):
    assert encoder.max_words == 12
    assert encoder(["a " * 10])[1].sum() == 12
    sentence = r"^the prompt has 10,002 sub-words and the text encoder reads at most 12; shorten it$"
    with pytest.raises(ValueError, match=sentence):
        encoder(["fox", "a " * 10_000])


@pytest.mark.parametrize(("positions", "max_words"), [(12, 12), (4096, 512)])
def test_a_tokenizer_without_a_limit_reads_as_far_as_the_encoder_and_at_most_512_words(encoder, positions, max_words):
    encoder.tokenizer.model_max_length = int(1e30)
    encoder.encoder.config.max_position_embeddings = positions
    assert encoder.max_words == max_words


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.int8, 0.1), (torch.float16, 5e-3), (torch.float32, 1e-6)])
def test_saved_and_loaded_it_gives_close_states(encoder, tmp_path, dtype, tolerance):
    encoder.save(tmp_path / "saved", dtype)
    loaded = TextEncoder.from_folder(tmp_path / "saved")
    assert loaded.encoder.dtype == torch.float32
    assert loaded.max_words == 12
    prompts = ["a red apple", "fox"]
    (states, is_word), (expected, expected_words) = loaded(prompts), encoder(prompts)
    assert is_word.equal(expected_words)
    torch.testing.assert_close(states[is_word], expected[is_word], atol=tolerance, rtol=0)


def test_a_t5_in_int8_keeps_its_one_table_of_words_and_gives_close_states(tiny_t5, tmp_path):
    tiny_t5.save(tmp_path / "saved", torch.int8)
    loaded = TextEncoder.from_folder(tmp_path / "saved")
    (states, is_word), (expected, _) = loaded(["a red apple"]), tiny_t5(["a red apple"])
    similarity = torch.nn.functional.cosine_similarity(states[is_word], expected[is_word], dim=-1)
    assert similarity.min() > 0.999
    assert not states[is_word].equal(expected[is_word])


@pytest.mark.parametrize("dtype", [torch.int8, torch.float16])
def test_saving_does_not_round_the_encoder_in_use(encoder, tmp_path, dtype):
    before = encoder(["a red apple"])[0]
    encoder.save(tmp_path / "saved", dtype)
    assert encoder(["a red apple"])[0].equal(before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.int8])
def test_an_encoder_is_saved_over_the_folder_that_it_came_from(encoder, tmp_path, dtype):
    """Its weights may be read from the very file: another with as many bytes in its place would be other weights."""
    folder = tmp_path / "saved"
    encoder.save(folder, torch.float32)
    (folder / "model-00001-of-00002.safetensors").touch()  # as one in several files left it
    loaded = TextEncoder.from_folder(folder)
    before, opened = loaded(["a red apple"])[0], (folder / "model.safetensors").stat().st_ino
    loaded.save(folder, dtype)
    assert (folder / "model.safetensors").stat().st_ino != opened
    assert loaded(["a red apple"])[0].equal(before)
    again = TextEncoder.from_folder(folder)(["a red apple"])[0]
    torch.testing.assert_close(again, before, atol=0.1 if dtype == torch.int8 else 5e-3, rtol=0)
    assert [path.name for path in folder.glob("*.safetensors")] == ["model.safetensors"]
    assert not list(folder.glob(".*"))


def test_a_folder_without_its_tokenizer_is_refused_with_one_sentence(encoder, tiny_t5, tmp_path):
    for name, each in (("bert", encoder), ("t5", tiny_t5)):
        each.save(tmp_path / name)
        TextEncoder.from_folder(tmp_path / name)
        (tmp_path / name / "tokenizer.json").unlink()
        with pytest.raises(ValueError, match=rf"^\S+{name} has no tokenizer .*; save the encoder's own there too$"):
            TextEncoder.from_folder(tmp_path / name)
        (tmp_path / name / "tokenizer_config.json").unlink()
        with pytest.raises(ValueError, match=rf"^\S+{name} has no tokenizer \(\S+ or tokenizer.json\); save the enc"):
            TextEncoder.from_folder(tmp_path / name)


@pytest.mark.parametrize(
    ("caption", "cut"),
    [
        ("a red fox", "a red fox"),
        (" ".join(["fox"] * 10), " ".join(["fox"] * 10)),
        (" ".join(["fox"] * 11), " ".join(["fox"] * 10)),
        ("a  red\n" * 5000, "a  red\n" * 4 + "a  red"),
        ("," * 30, "," * 10),
        ("", ""),
    ],
)
def test_captions_are_cut_behind_the_last_word_that_the_encoder_reads(encoder, caption, cut):
    assert encoder.cut_to_fit([caption, "a red apple"]) == [cut, "a red apple"]
    assert encoder([cut])[1].sum() <= encoder.max_words


def test_what_is_no_text_encoder_is_refused(tmp_path):
    with pytest.raises((OSError, ValueError)):
        TextEncoder.from_folder(tmp_path)


def test_a_fingerprint_tells_encoders_and_tokenizers_apart(encoder, tmp_path):
    mine = encoder.fingerprint()
    assert len(mine) == 12
    encoder.save(tmp_path / "same", torch.float32)
    assert TextEncoder.from_folder(tmp_path / "same").fingerprint() == mine
    encoder.save(tmp_path / "rounded", torch.int8)
    assert TextEncoder.from_folder(tmp_path / "rounded").fingerprint() != mine

    (tmp_path / "vocab.txt").write_text("\n".join([*WORDS[:5], "red", "a", *WORDS[7:]]))
    swapped = BertTokenizerFast(str(tmp_path / "vocab.txt"), model_max_length=12)
    assert TextEncoder(encoder.encoder, swapped).fingerprint() != mine
    encoder.encoder.config.num_attention_heads = 4
    assert encoder.fingerprint() != mine
    encoder.encoder.config.num_attention_heads = 2
    assert encoder.fingerprint() == mine
    layers = encoder.encoder.encoder.layer
    layers[0], layers[1] = layers[1], layers[0]
    assert encoder.fingerprint() != mine
    layers[0], layers[1] = layers[1], layers[0]
    encoder.encoder.embeddings.word_embeddings.weight.data[7, 3] += 1e-3
    assert encoder.fingerprint() != mine
