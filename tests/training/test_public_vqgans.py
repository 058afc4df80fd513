"""Published VQGANs, in the layouts of their own files with random weights, become ours with equal outputs."""

import json
import shutil
import sys
import types

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from muse.checkpoint import CheckpointError, load_module, save_module
from muse.models.vqgan import VQGAN, VQGANConfig
from muse.training.public_vqgans import import_vqgan

CHANNELS = 32  # their normalisations have 32 groups


def pictures():
    return torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(1))


class Theirs:
    """A network written as the functions of its published code; weights come into being, at random, by name and shape
    when a function first asks for them."""

    def __init__(self, mult, blocks, z, codes, num, style):
        self.weights, self.mult, self.blocks, self.z, self.codes, self.style = {}, mult, blocks, z, codes, style
        self.generator = torch.Generator().manual_seed(0)
        self.weights["quantize.embedding.weight"] = torch.randn(num, codes, generator=self.generator)

    def get(self, name, *shape, scale=1.0, shift=0.0):
        if name not in self.weights:
            self.weights[name] = shift + scale * torch.randn(shape, generator=self.generator)
        return self.weights[name]

    def conv(self, name, x, out, size=3, **options):
        weight = self.get(f"{name}.weight", out, x.shape[1], size, size, scale=(x.shape[1] * size * size) ** -0.5)
        return F.conv2d(x, weight, self.get(f"{name}.bias", out, scale=0.3), **{"padding": size // 2, **options})

    def norm(self, name, x):
        weight, bias = (
            self.get(f"{name}.{k}", x.shape[1], scale=0.3, shift=s) for k, s in (("weight", 1), ("bias", 0))
        )
        return F.group_norm(x, 32, weight, bias, eps=1e-6)

    def res(self, name, x, out):
        hidden = self.conv(f"{name}.conv1", F.silu(self.norm(f"{name}.norm1", x)), out)
        hidden = self.conv(f"{name}.conv2", F.silu(self.norm(f"{name}.norm2", hidden)), out)
        return hidden + (x if x.shape[1] == out else self.conv(f"{name}.nin_shortcut", x, out, 1))

    def attend(self, name, x):
        batch, dim, height, width = x.shape
        normed = self.norm(f"{name}.norm", x)
        query, key, value = (self.conv(f"{name}.{part}", normed, dim, 1).flatten(2) for part in "qkv")
        scores = torch.softmax(query.transpose(1, 2) @ key * dim**-0.5, dim=2)
        mixed = (value @ scores.transpose(1, 2)).reshape(batch, dim, height, width)
        return x + self.conv(f"{name}.proj_out", mixed, dim, 1)

    def names(self, side, level):
        if self.style == "llamagen":
            index = level if side == "encoder" else len(self.mult) - 1 - level
            return f"{side}.conv_blocks.{index}", "res"
        return f"{side}.{'down' if side == 'encoder' else 'up'}.{level}", "block"

    def level(self, side, level, x, blocks):
        name, res = self.names(side, level)
        for i in range(blocks):
            x = self.res(f"{name}.{res}.{i}", x, CHANNELS * self.mult[level])
            if level == len(self.mult) - 1:
                x = self.attend(f"{name}.attn.{i}", x)
        return x, name

    def middle(self, side, x):
        first, attention, last = ("0", "1", "2") if self.style == "llamagen" else ("block_1", "attn_1", "block_2")
        x = self.attend(f"{side}.mid.{attention}", self.res(f"{side}.mid.{first}", x, x.shape[1]))
        return self.res(f"{side}.mid.{last}", x, x.shape[1])

    def encode(self, x):
        x = self.conv("encoder.conv_in", x, CHANNELS)
        for level in range(len(self.mult)):
            x, name = self.level("encoder", level, x, self.blocks)
            if level < len(self.mult) - 1:
                x = self.conv(f"{name}.downsample.conv", F.pad(x, (0, 1, 0, 1)), x.shape[1], stride=2, padding=0)
        x = F.silu(self.norm("encoder.norm_out", self.middle("encoder", x)))
        return self.conv("quant_conv", self.conv("encoder.conv_out", x, self.z), self.codes, 1)

    def codebook(self):
        codes = self.weights["quantize.embedding.weight"]
        return F.normalize(codes, dim=1) if self.style == "llamagen" else codes

    def tokens(self, latents):
        rows = latents.movedim(1, -1).flatten(0, -2)
        rows = F.normalize(rows, dim=1) if self.style == "llamagen" else rows
        return torch.cdist(rows[None], self.codebook()[None])[0].argmin(1).reshape(len(latents), -1)

    def decode(self, codes):
        x = self.conv("decoder.conv_in", self.conv("post_quant_conv", codes, self.z, 1), CHANNELS * self.mult[-1])
        x = self.middle("decoder", x)
        for level in reversed(range(len(self.mult))):
            x, name = self.level("decoder", level, x, self.blocks + 1)
            if level:
                x = self.conv(f"{name}.upsample.conv", F.interpolate(x, scale_factor=2.0), x.shape[1])
        return self.conv("decoder.conv_out", F.silu(self.norm("decoder.norm_out", x)), 3)


LAYOUTS = {
    "taming f=16": ({"mult": (1, 1, 2, 2, 4), "blocks": 2, "z": 12, "codes": 12, "num": 96, "style": "taming"}, 16),
    "taming f=8": ({"mult": (1, 2, 2, 4), "blocks": 2, "z": 4, "codes": 4, "num": 64, "style": "taming"}, 8),
    "taming narrow": ({"mult": (1, 2), "blocks": 1, "z": 12, "codes": 5, "num": 64, "style": "taming"}, 2),
    "llamagen f=8": ({"mult": (1, 2, 2, 4), "blocks": 2, "z": 12, "codes": 4, "num": 64, "style": "llamagen"}, 8),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@torch.no_grad()
def test_a_published_checkpoint_becomes_a_vqgan_of_ours_with_equal_outputs(layout, tmp_path):
    sizes, stride = LAYOUTS[layout]
    theirs = Theirs(**sizes)
    side = max(16, 2 * stride)
    given = torch.rand(2, 3, side, 2 * side, generator=torch.Generator().manual_seed(1))
    latents = theirs.encode(given * 2 - 1)
    rows = latents.movedim(1, -1).reshape(-1, theirs.codes)
    picks = torch.randint(len(rows), (sizes["num"],), generator=theirs.generator)
    theirs.weights["quantize.embedding.weight"] = rows[picks] + 0.05 * torch.randn(sizes["num"], theirs.codes)
    tokens = theirs.tokens(latents)
    grid = tokens.reshape(2, latents.shape[2], latents.shape[3])
    decoded = theirs.decode(theirs.codebook()[grid].movedim(-1, 1))

    trainer = {"loss.discriminator.main.0.weight": torch.zeros(3)}
    if sizes["style"] == "llamagen":
        usage = {"quantize.codebook_used": torch.zeros(65536)}
        content = {"model": {**theirs.weights, **usage}, "steps": 7}
    else:
        content = {"state_dict": {**theirs.weights, **trainer}, "epoch": 3, "global_step": 5}
    torch.save(content, tmp_path / "last.ckpt")
    save_module(import_vqgan(tmp_path / "last.ckpt"), tmp_path / "ours")
    ours = load_module(VQGAN, VQGANConfig, tmp_path / "ours")

    assert ours.config.stride == stride
    assert ours.config.num_codes == sizes["num"]
    torch.testing.assert_close(ours.latents(given)[:, : theirs.codes], latents, atol=1e-4, rtol=0)
    assert ours.encode(given).equal(tokens)
    assert len(tokens.unique()) > 3
    wanted = (decoded / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(ours.decode(tokens, latents.shape[2]), wanted, atol=1e-4, rtol=0)
    torch.testing.assert_close(ours.decoder(ours.quantizer.look_up(grid)), decoded, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("attention", "level_attention"), [(False, False), (True, False), (True, True)])
@torch.no_grad()
def test_a_folder_of_diffusers_becomes_a_vqgan_of_ours_with_equal_outputs(attention, level_attention, tmp_path):
    from diffusers import VQModel

    torch.manual_seed(0)
    down, up = "DownEncoderBlock2D", "UpDecoderBlock2D"
    theirs = VQModel(
        down_block_types=(down, "AttnDownEncoderBlock2D" if level_attention else down),
        up_block_types=("AttnUpDecoderBlock2D" if level_attention else up, up),
        block_out_channels=(16, 24),
        layers_per_block=2,
        latent_channels=6,
        vq_embed_dim=6,
        num_vq_embeddings=48,
        norm_num_groups=4,
        mid_block_add_attention=attention,
    ).eval()
    for parameter in theirs.parameters():
        parameter += 0.1 * torch.rand_like(parameter)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = import_vqgan(tmp_path / "theirs")
    latents = theirs.encode(pictures() * 2 - 1).latents
    torch.testing.assert_close(ours.latents(pictures()), latents, atol=1e-4, rtol=0)
    tokens = torch.randint(48, (2, 8, 12))
    codes = theirs.quantize.embedding(tokens).movedim(-1, 1)
    decoded = theirs.decode(codes, force_not_quantize=True, return_dict=False)[0]
    torch.testing.assert_close(ours.decoder(ours.quantizer.look_up(tokens)), decoded, atol=1e-4, rtol=0)


def lightning(monkeypatch, name):
    """A class of the callbacks of PyTorch Lightning, which pickles by this name."""
    home = "pytorch_lightning.callbacks.model_checkpoint"
    for module in ("pytorch_lightning", "pytorch_lightning.callbacks", home):
        monkeypatch.setitem(sys.modules, module, types.ModuleType(module))
    callback = type(name, (), {"__module__": home})
    setattr(sys.modules[home], name, callback)
    return callback


def save_of_lightning(path, callback):
    """A checkpoint as PyTorch Lightning 1.0 wrote those of taming transformers."""
    theirs = Theirs((1, 2), 1, 12, 12, 32, "taming")
    with torch.no_grad():
        theirs.decode(torch.zeros(1, 12, 4, 4))
        theirs.encode(torch.zeros(1, 3, 8, 8))
    adam = {"step": 5, "exp_avg": torch.zeros(3), "exp_avg_sq": torch.zeros(3)}
    groups = [{"lr": 1e-4, "betas": (0.5, 0.9), "eps": 1e-8, "amsgrad": False, "params": [0]}]
    best = {
        "monitor": "val/rec_loss",
        "best_model_score": torch.tensor(0.3),
        "best_model_path": "checkpoints/epoch=000003.ckpt",
        "current_score": torch.tensor(0.3),
        "dirpath": "checkpoints",
    }
    content = {
        "epoch": 4,
        "global_step": 5,
        "pytorch-lightning_version": "1.0.8",
        "callbacks": {callback: best},
        "optimizer_states": [{"state": {0: adam}, "param_groups": groups}],
        "lr_schedulers": [],
        "state_dict": {**theirs.weights, "loss.discriminator.main.0.weight": torch.zeros(3)},
    }
    torch.save(content, path)


def test_a_checkpoint_that_names_the_callback_of_lightning_is_read(tmp_path, monkeypatch):
    with monkeypatch.context() as patches:
        save_of_lightning(tmp_path / "last.ckpt", lightning(patches, "ModelCheckpoint"))
    assert torch.serialization.get_unsafe_globals_in_checkpoint(tmp_path / "last.ckpt") == [
        "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint"
    ]
    before = set(torch.serialization.get_safe_globals())  # in no order of their own
    assert import_vqgan(tmp_path / "last.ckpt").config.num_codes == 32
    assert set(torch.serialization.get_safe_globals()) == before
    assert "pytorch_lightning" not in sys.modules


def test_another_class_of_lightning_is_not_opened(tmp_path, monkeypatch):
    with monkeypatch.context() as patches:
        save_of_lightning(tmp_path / "last.ckpt", lightning(patches, "Other"))
    with pytest.raises(CheckpointError, match=r"last.ckpt holds more than tensors, .*; save its state_dict alone$"):
        import_vqgan(tmp_path / "last.ckpt")


class Pickled:
    """Something that is no tensor."""


def test_a_pickle_of_more_than_tensors_is_not_opened(tmp_path):
    torch.save({"state_dict": {}, "callbacks": Pickled()}, tmp_path / "last.ckpt")
    with pytest.raises(CheckpointError, match=r"last.ckpt holds more than tensors, .*; save its state_dict alone$"):
        import_vqgan(tmp_path / "last.ckpt")


def test_what_is_no_vqgan_is_refused_with_one_sentence(tmp_path):
    with pytest.raises(CheckpointError, match=r"nothing is missing; give a checkpoint file or a folder$"):
        import_vqgan(tmp_path / "nothing")
    Image.new("RGB", (8, 8)).save(tmp_path / "cat.png")
    with pytest.raises(CheckpointError, match=r"cat.png is no checkpoint; give one of taming-transformers"):
        import_vqgan(tmp_path / "cat.png")
    (tmp_path / "half.pt").write_bytes(b"PK half")
    with pytest.raises(CheckpointError, match=r"half.pt (is damaged|holds more than tensors)"):
        import_vqgan(tmp_path / "half.pt")
    torch.save({"encoder.conv_in.weight": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=r"has no weight quantize.embedding.weight; give a folder of diffusers'"):
        import_vqgan(tmp_path / "other.pt")
    torch.save([torch.zeros(1)], tmp_path / "list.pt")
    with pytest.raises(CheckpointError, match=r"list.pt holds a list and no weights by their names"):
        import_vqgan(tmp_path / "list.pt")
    torch.save({"quantize.embedding.weight": torch.zeros(4, 2)}, tmp_path / "codes.pt")
    with pytest.raises(CheckpointError, match=r"codes.pt has no quant_conv.weight; give the whole checkpoint"):
        import_vqgan(tmp_path / "codes.pt")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/config.json").write_text(json.dumps({}))
    with pytest.raises(CheckpointError, match=r"diffusion_pytorch_model.safetensors is missing; give a folder of diff"):
        import_vqgan(tmp_path / "folder")
    shutil.rmtree(tmp_path / "folder")


def test_a_weight_that_has_no_place_is_named(tmp_path):
    theirs = Theirs((1, 2), 1, 12, 12, 32, "taming")
    with torch.no_grad():
        theirs.decode(torch.zeros(1, 12, 4, 4))
        theirs.encode(torch.zeros(1, 3, 8, 8))
    torch.save({**theirs.weights, "encoder.extra.weight": torch.zeros(1)}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"has a weight encoder.extra.weight that a VQGAN of ours has no place"):
        import_vqgan(tmp_path / "a.pt")
