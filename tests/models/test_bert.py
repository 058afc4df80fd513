"""BERT without `transformers`, beside that of `transformers`."""

import json
import random
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

from muse.checkpoint import read_weights, write_weights
from muse.models.bert import Bert, WordPieces
from muse.models.text_encoder import TextEncoder, load_narrow, load_tokenizer
from muse.pipeline import SHIPPED

SHIPPED_ENCODER = SHIPPED / "emoji" / "text_encoder"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "apple", "fox", "##es"]
AWKWARD = [
    "",
    "Ünïcode çafé ÅΩ 漢字 [SEP] [MASK] foo",
    "x" * 200,
    "\u200b\ufeff a\tb\nc \U0001f600",
    "a red apple, 3d style",
]


@pytest.fixture(scope="module")
def of_transformers():
    """The shipped text encoder, as `transformers` reads it."""
    return TextEncoder(load_narrow(SHIPPED_ENCODER)[0], load_tokenizer(SHIPPED_ENCODER))


@pytest.fixture(scope="module")
def shipped():
    encoder = TextEncoder.from_folder(SHIPPED_ENCODER)
    assert isinstance(encoder.encoder, Bert)
    assert isinstance(encoder.tokenizer, WordPieces)
    return encoder


@pytest.fixture
def folder(tmp_path):
    """A tiny BERT as `transformers` saves it."""
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS))
    torch.manual_seed(0)
    size: Any = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    encoder = BertModel(BertConfig(vocab_size=len(WORDS), max_position_embeddings=12, **size))
    encoder.save_pretrained(tmp_path / "tiny")
    BertTokenizerFast(str(tmp_path / "vocab.txt"), model_max_length=12).save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


def change(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def random_texts(num):
    """Of letters, signs and alphabets of all kinds."""
    draw = random.Random(0)
    ranges = ((32, 127), (160, 0x2FF), (0x370, 0x3000), (0x4E00, 0x5000), (0x1F300, 0x1F700))
    return [
        "".join(chr(draw.randrange(*draw.choice(ranges))) for _ in range(draw.randrange(1, 60))) for _ in range(num)
    ]


def test_its_states_and_sub_words_are_to_the_last_bit_those_of_transformers(shipped, of_transformers):
    texts = [*AWKWARD, *random_texts(55)]
    for i in range(0, len(texts), 5):
        for prompts in (texts[i : i + 5], texts[i : i + 1]):  # padded, and alone
            (states, is_word), (expected, expected_words) = shipped(prompts), of_transformers(prompts)
            assert is_word.equal(expected_words)
            assert states.equal(expected)
    assert [shipped.num_words(text) for text in texts] == [of_transformers.num_words(text) for text in texts]
    assert (shipped.max_words, shipped.dim) == (of_transformers.max_words, of_transformers.dim) == (512, 384)


def test_what_it_saves_transformers_reads(shipped, of_transformers, tmp_path):
    shipped.save(tmp_path / "saved", torch.float32)
    again = TextEncoder(
        BertModel.from_pretrained(tmp_path / "saved", attn_implementation="eager"), load_tokenizer(tmp_path / "saved")
    )
    states, _ = again(["a red apple, 3d style", "foxes"])
    assert states.equal(of_transformers(["a red apple, 3d style", "foxes"])[0])


def test_one_that_transformers_has_saved_is_read_too(folder):
    encoder = TextEncoder.from_folder(folder)
    assert isinstance(encoder.encoder, Bert)
    expected = BertModel.from_pretrained(folder, attn_implementation="eager").eval()
    numbers, is_word = encoder.sub_words(["a red apple", "foxes"])
    assert numbers.tolist() == [[2, 5, 6, 7, 3], [2, 8, 9, 3, 0]]
    with torch.no_grad():
        states = expected(input_ids=numbers, attention_mask=is_word.long()).last_hidden_state
    assert encoder(["a red apple", "foxes"])[0].equal(states)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("config.json", {"hidden_act": "relu"}),
        ("config.json", {"is_decoder": True}),
        ("config.json", {"position_embedding_type": "relative_key"}),
        ("tokenizer_config.json", {"do_lower_case": False}),
        ("tokenizer_config.json", {"padding_side": "left"}),
        ("tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"}),
        ("tokenizer_config.json", {"added_tokens_decoder": {"10": {"content": "<fox>"}}}),
    ],
)
def test_one_of_another_kind_is_left_to_transformers(folder, name, fields):
    TextEncoder.from_folder(folder)
    change(folder / name, **fields)
    assert Bert.from_folder(folder) is None or WordPieces.from_folder(folder) is None


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", "[]"),
        ("config.json", "{"),
        ("config.json", '{"model_type": "bert", "hidden_size": "many"}'),
        ("tokenizer.json", "{}"),
        ("tokenizer_config.json", '{"tokenizer_class": ["BertTokenizer"]}'),
    ],
)
def test_files_that_are_not_whole_are_left_to_transformers_to_say_so(folder, name, content):
    (folder / name).write_text(content)
    assert Bert.from_folder(folder) is None or WordPieces.from_folder(folder) is None


@pytest.mark.parametrize("fields", [{"num_hidden_layers": 3}, {"num_hidden_layers": 1}, {"num_attention_heads": 3}])
def test_weights_of_another_shape_are_refused(folder, fields):
    change(folder / "config.json", **fields)
    with pytest.raises(ValueError, match=r"different models|heads"):
        TextEncoder.from_folder(folder)


def test_a_pooler_and_what_older_files_hold_are_passed_over(folder):
    before = TextEncoder.from_folder(folder)(["a red apple"])[0]
    weights = read_weights(folder)
    assert any(name.startswith("pooler.") for name in weights)
    write_weights({**weights, "embeddings.position_ids": torch.arange(12)[None]}, folder)
    encoder = TextEncoder.from_folder(folder)
    assert isinstance(encoder.encoder, Bert)
    assert encoder(["a red apple"])[0].equal(before)
