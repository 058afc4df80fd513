"""The ablation of the pretrained text encoder: a base that learns to read as well."""

import dataclasses
import json

import pytest
import torch

from muse.data.batches import TokenBatch
from muse.evaluation.intervals import wilson
from muse.models.transformer import TransformerConfig
from muse.training.base import BaseTraining
from muse.training.engine import EngineOptions
from projects.emoji.reading import (
    Command,
    ReadingStage,
    ReadingTransformer,
    SubWords,
    as_markdown,
    narrowed,
)
from projects.emoji.synonyms import seen_records

CONFIG = TransformerConfig(
    num_codes=16, height=4, width=4, dim=32, depth=1, heads=2, mlp_dim=32, text_dim=24, dropout=0.0
)
PROMPTS = ["a red apple", "two blue dogs on the apple"]


@pytest.fixture
def sub_words(tiny_muse):
    return SubWords(tiny_muse.text_encoder.encoder, tiny_muse.text_encoder.tokenizer)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return ReadingTransformer(CONFIG).eval()


def test_sub_words_are_the_tokenizers_numbers(sub_words):
    numbers, is_word = sub_words(PROMPTS)
    expected = [sub_words.tokenizer(prompt)["input_ids"] for prompt in PROMPTS]
    assert [row[mask, 0].tolist() for row, mask in zip(numbers, is_word, strict=True)] == expected


@torch.no_grad()
def test_logits_depend_on_the_words_and_their_order_and_not_on_padding(network, sub_words):
    tokens = torch.full((1, 16), CONFIG.mask_id)
    alone, beside = sub_words(PROMPTS[:1]), sub_words(PROMPTS)
    assert beside[0].shape[1] > alone[0].shape[1]
    logits = network(tokens, network.read(*alone))
    padded = network(tokens, network.read(beside[0][:1], beside[1][:1]))
    torch.testing.assert_close(padded, logits)
    for other in ("a blue apple", "apple red a"):
        assert not network(tokens, network.read(*sub_words([other]))).allclose(logits)


def test_training_moves_what_reads_and_a_stopped_run_goes_on(sub_words, tmp_path):
    engine = EngineOptions(folder=tmp_path, steps=3, learning_rate=1e-2, warmup=0, save_every=1, precision="32-true")
    training = BaseTraining(engine=engine, model=CONFIG, optimizer="muon", caption_drop=0.0)
    tokens = torch.randint(16, (2, 16), generator=torch.Generator().manual_seed(0))

    def batch_at(step):
        return TokenBatch(tokens, PROMPTS)

    torch.manual_seed(0)
    before = {name: weight.clone() for name, weight in ReadingStage(training, sub_words).network.state_dict().items()}
    ReadingStage(training, sub_words).run(batch_at, [], None)
    stage = ReadingStage(dataclasses.replace(training, engine=dataclasses.replace(engine, steps=4)), sub_words)
    stage.run(batch_at, [], None)
    for name, weight in stage.network.state_dict().items():
        if name.startswith(("reader", "word", "place")):
            assert not weight.equal(before[name]), name
    steps = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert max(steps) == 4


def test_the_table_has_a_row_for_each_reader():
    rows = {"pretrained": {"seen": wilson(8, 10)}, "scratch": {"seen": wilson(4, 10)}}
    lines = as_markdown(rows).splitlines()
    assert lines[0].split("|")[1:3] == [" text encoder ", " seen, R@5 % "]
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["pretrained", "scratch"]
    assert "80.0" in lines[2]


@pytest.mark.parametrize(
    ("wrong", "message"), [({"dim": 100}, "dim is 100; give a multiple"), ({"only": ()}, "no way")]
)
def test_a_command_that_cannot_be_done_is_refused_in_one_sentence(wrong, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        Command(tmp_path, **wrong)


def test_the_base_transformers_are_as_large_as_asked(tmp_path):
    shape = Command(tmp_path, dim=128, depth=2).shape
    assert dataclasses.replace(CONFIG, **shape) == dataclasses.replace(CONFIG, dim=128, depth=2, heads=2, mlp_dim=512)


def test_few_things_are_the_same_ones_each_time_and_some_come_first(block_art):
    few = narrowed(block_art, 5, {"barrel", "drum"})
    names = {record.concept for record in seen_records(few)}
    assert len(names) == 5
    assert {"barrel", "drum"} <= names
    assert {record.concept for record in seen_records(narrowed(block_art, 7, {"barrel", "drum"}))} > names
    assert [record.index for record in few.records] == [record.index for record in block_art.records]
