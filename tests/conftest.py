"""Shapes in signatures are checked while tests run; and a tiny model for the tests that draw."""

import logging
import os
import shutil
from typing import Any, cast

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the tests run side by side, and so do the commands that they start

import jaxtyping
import pytest
import torch

jaxtyping.install_import_hook("muse", "typing_checker.check")
torch.set_num_threads(1)
logging.getLogger("c10d-NullHandler-dcp_logger").disabled = True  # it tells pytest of every tensor of a checkpoint

WORDS = "<pad> </s> <unk> a red blue apple dog 3d style , on of the two"


def pytest_collection_finish(session):
    """Tests of one group share what is set up once for them, or a port; one worker must have them all."""
    if os.environ.get("PYTEST_XDIST_WORKER") and session.config.getvalue("loadgroup"):
        lost = [item for item in session.items if item.get_closest_marker("xdist_group") and "@" not in item.nodeid]
        if lost:
            raise pytest.UsageError(f"pytest-xdist does not keep the group of {lost[0].nodeid}; see pyproject.toml")


@pytest.fixture(autouse=True)
def subnormal_numbers():
    """An engine flushes them to 0 for the whole process; hypothesis wants to draw them."""
    yield
    torch.set_flush_denormal(False)


@pytest.fixture
def without_type_checks():
    """Users have no beartype, which would answer in place of the code itself."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def convolved_in():
    """What float32 is to cuDNN at each convolution: "ieee" is itself, "tf32" is rounded."""
    arithmetic, cudnn = [], cast(Any, torch.backends.cudnn)

    def look(module, given):
        if isinstance(module, torch.nn.Conv2d):
            arithmetic.append(cudnn.conv.fp32_precision)

    hook = torch.nn.modules.module.register_module_forward_pre_hook(look)
    yield arithmetic
    hook.remove()


@pytest.fixture(scope="session")
def alike():
    """A function: whether two pictures are the same but for rounding by one level of 255, as a batch of another size
    may be added up in another order."""
    import numpy as np

    def is_alike(one, other):
        levels, others = (np.asarray(each).astype(int) for each in (one, other))
        return levels.shape == others.shape and np.abs(levels - others).max() <= 1

    return is_alike


@pytest.fixture(scope="session")
def tiny_tokenizer():
    """Words, and an end of sentence as T5 has it."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = {word: i for i, word in enumerate(WORDS.split())}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.post_processor = processors.TemplateProcessing(  # pyright: ignore[reportAttributeAccessIssue]
        single="$A </s>", special_tokens=[("</s>", words["</s>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=77
    )


@pytest.fixture(scope="session")
def tiny_t5(tiny_tokenizer):
    """A T5 encoder of random weights."""
    from transformers import T5Config, T5EncoderModel

    from muse.models.text_encoder import TextEncoder

    config = T5Config(vocab_size=len(WORDS.split()), d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4)
    return TextEncoder(randomised(T5EncoderModel(config), 0.3), tiny_tokenizer)


@pytest.fixture(scope="session")
def tiny_bert(tiny_tokenizer):
    """A BERT of random weights."""
    from transformers import BertConfig, BertModel

    from muse.models.text_encoder import TextEncoder

    config = BertConfig(
        vocab_size=len(WORDS.split()),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
    )
    return TextEncoder(randomised(BertModel(config), 0.3), tiny_tokenizer)


@pytest.fixture(scope="session")
def tiny_vqgan():
    """A VQGAN of random weights, 16 pixels a token."""
    from muse.models.vqgan import VQGAN, VQGANConfig

    config = VQGANConfig(channels=(8, 16), patch=8, blocks=1, decoder_blocks=1, num_codes=64, code_dim=8, norm_groups=4)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        vqgan = VQGAN(config)
        torch.nn.init.normal_(vqgan.quantizer.codebook)  # so that other tokens are another picture
    return vqgan


@pytest.fixture(scope="session")
def tiny_folder(tiny_t5, tiny_vqgan, tmp_path_factory):
    """A whole checkpoint of random weights: 8 x 8 tokens, pictures of 128 pixels. Copy it to change it."""
    from muse.models.transformer import MaskedTransformer, TransformerConfig
    from muse.pipeline import Muse
    from muse.sampling import SamplingOptions

    size = {"height": 8, "width": 8, "dim": 64, "depth": 2, "heads": 4, "mlp_dim": 128, "text_dim": 32}
    config = TransformerConfig(num_codes=64, vqgan_fingerprint=tiny_vqgan.fingerprint(), **size)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    base, defaults = randomised(MaskedTransformer(config), 0.3), SamplingOptions(steps=6, guidance=2.0)
    Muse(tiny_t5, tiny_vqgan, base, name="tiny", defaults=defaults).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_muse(tiny_folder):
    """The model of `tiny_folder`; leave it as it is."""
    from muse.pipeline import Muse

    return Muse.from_pretrained(tiny_folder, "cpu", "float32")


@pytest.fixture(scope="session")
def tiny_vqgan_superres():
    """A VQGAN of random weights for pictures of 256 pixels: 16 pixels a token too, but other codes."""
    from muse.models.vqgan import VQGAN, VQGANConfig

    config = VQGANConfig(channels=(8, 16), patch=8, blocks=1, decoder_blocks=1, num_codes=48, code_dim=8, norm_groups=4)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        vqgan = VQGAN(config)
        torch.nn.init.normal_(vqgan.quantizer.codebook)
    return vqgan


@pytest.fixture(scope="session")
def cascade_folder(tiny_folder, tiny_vqgan, tiny_vqgan_superres, tmp_path_factory):
    """The checkpoint of `tiny_folder` with super-resolution: 8 x 8 tokens to 16 x 16, pictures of 256 pixels."""
    from muse.models.superres import SuperResConfig, SuperResTransformer
    from muse.pipeline import Muse
    from muse.sampling import SamplingOptions

    config = SuperResConfig(
        num_codes=48,
        low_num_codes=64,
        height=16,
        width=16,
        low_height=8,
        low_width=8,
        dim=32,
        depth=2,
        low_depth=1,
        heads=4,
        mlp_dim=64,
        text_dim=32,
        block=4,
        vqgan_fingerprint=tiny_vqgan_superres.fingerprint(),
        vqgan_low_fingerprint=tiny_vqgan.fingerprint(),
    )
    low = Muse.from_pretrained(tiny_folder, "cpu", "float32")
    muse = Muse(
        low.text_encoder,
        low.vqgan,
        low.base,
        randomised(SuperResTransformer(config), 0.3),
        tiny_vqgan_superres,
        name="cascade",
        defaults=low.defaults,
        superres_defaults=SamplingOptions(steps=4, guidance=2.0),
    )
    folder = tmp_path_factory.mktemp("models") / "cascade"
    muse.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def cascade(cascade_folder):
    """The model of `cascade_folder`; leave it as it is."""
    from muse.pipeline import Muse

    return Muse.from_pretrained(cascade_folder, "cpu", "float32")


@pytest.fixture
def own_cascade(cascade_folder, tmp_path):
    """A copy of `cascade_folder` to spoil."""
    return shutil.copytree(cascade_folder, tmp_path / "cascade")


@pytest.fixture
def own_folder(tiny_folder, tmp_path):
    """A copy of `tiny_folder` to spoil."""
    return shutil.copytree(tiny_folder, tmp_path / "tiny")


@torch.no_grad()
def randomised(module, std):
    """Weights large enough for a text to matter without any training, always the same."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.normal_(std=std, generator=generator)
    return module


@pytest.fixture(scope="module")
def browser():
    """Debian's Chromium without a screen, for tests with the mark browser."""
    from playwright.sync_api import sync_playwright

    from benchmarks.chromium import launch

    with sync_playwright() as playwright:
        browser = launch(playwright)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def clip_folder(tiny_tokenizer, tmp_path_factory):
    """A CLIP of random weights, as transformers saves it."""
    from transformers import CLIPConfig, CLIPModel
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    folder, side = tmp_path_factory.mktemp("clip") / "tiny-clip", 32
    layers = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 16, "intermediate_size": 32}
    words = {"vocab_size": 16, "max_position_embeddings": 16, "eos_token_id": 1, "bos_token_id": 1, "pad_token_id": 0}
    config = CLIPConfig(
        text_config=layers | words, vision_config=layers | {"image_size": side, "patch_size": 8}, projection_dim=12
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        CLIPModel(config).save_pretrained(folder)
    size = {"height": side, "width": side}
    CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size=size).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder
