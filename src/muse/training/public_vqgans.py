"""Published VQGANs as ours: diffusers' `VQModel` folders, and the checkpoints of taming transformers and LlamaGen.

All three are one network under other names: 3x3 convolutions in ResNet blocks, attention at the coarsest resolution,
a 1x1 convolution on either side of the codebook. What a name says is in the tables; the sizes are those of the weights.
"""

import pickle
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from muse.checkpoint import CheckpointError, build_empty, check_fit, first_sentence, read_json
from muse.models.vqgan import VQGAN, VQGANConfig

Weights = dict[str, Tensor]
FINAL = {
    "quant_conv": "encoder.to_code",
    "post_quant_conv": "decoder.from_code",
    "quantize.embedding": "quantizer.codebook",
}
ATTENTION = {
    "norm": "norm",
    "q": "query",
    "k": "key",
    "v": "value",
    "proj_out": "out",
    "group_norm": "norm",
    "to_q": "query",
    "to_k": "key",
    "to_v": "value",
    "to_out.0": "out",
}
MIDDLE = {
    "block_1": "0",
    "attn_1": "1",
    "block_2": "2",
    "0": "0",
    "1": "1",
    "2": "2",
    "resnets.0": "0",
    "attentions.0": "1",
    "resnets.1": "2",
}
LEVEL = re.compile(r"(?:down|up|down_blocks|up_blocks|conv_blocks)\.(\d+)\.(\w+)(?:\.(\d+))?\.(.+)")
MID = re.compile(r"(?:mid|mid_block)\.((?:resnets|attentions)\.\d|block_\d|attn_\d|\d)\.(.+)")
KINDS = {"block": "resnet", "res": "resnet", "resnets": "resnet", "attn": "attention", "attentions": "attention"}
LIGHTNING = "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint"
"""The class that its old versions wrote into checkpoints, those of taming transformers among them, as a mere key."""
AROUND_THE_CODES = (
    *("quant_conv.weight", "quant_conv.bias", "post_quant_conv.weight", "quantize.embedding.weight"),
    *("encoder.conv_out.weight", "encoder.conv_out.bias", "decoder.conv_in.weight"),
)
"""Weights between which the codes are."""
NORM_GROUPS = 32
"""Groups of the normalisations of all of them, unless a config says otherwise; no weight shows it."""


@dataclass(frozen=True)
class Place:
    """Where a weight of a resolution belongs: `index` counts from the finest in the encoder, as it comes in ours."""

    side: str
    level: int
    kind: str
    block: int
    rest: str


class ModelCheckpoint:
    """Stands for Lightning's class of this name, and does nothing."""


def import_vqgan(source: Path) -> VQGAN:
    """The VQGAN of a folder of diffusers or a checkpoint file of taming transformers or LlamaGen.
    Raises CheckpointError if it is none of these; no code of a pickle is run."""
    config = read_json(source / "config.json") if source.is_dir() else {}
    theirs = without_trainers(read_folder(source) if source.is_dir() else read_file(source))
    if "quantize.embedding.weight" not in theirs:
        raise CheckpointError(
            f"{source} has no weight quantize.embedding.weight; give a folder of diffusers' VQModel or a checkpoint of "
            "taming-transformers or LlamaGen (not one with a Gumbel quantizer)"
        )
    if config.get("block_out_channels") and config.get("norm_type", "group") != "group":
        raise CheckpointError(f"{source} has {config['norm_type']} normalisation; only group normalisation is known")
    if any(".conv_blocks." in name for name in theirs):  # LlamaGen, which looks up and passes on codes of length 1
        theirs["quantize.embedding.weight"] = F.normalize(theirs["quantize.embedding.weight"], dim=1)
    counts_from_finest = any(name.startswith("decoder.up.") for name in theirs)
    ours = renamed(with_square_codes(theirs, source), not counts_from_finest, source)
    vqgan = build_empty(VQGAN, config_of(ours, config.get("norm_num_groups", NORM_GROUPS)), source)
    check_fit(vqgan, ours, source)
    vqgan.load_state_dict(ours, strict=True, assign=True)
    return vqgan.eval()


def read_folder(folder: Path) -> Weights:
    """The weights of a diffusers folder.
    Raises CheckpointError if there are none."""
    for name in ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin", "model.safetensors"):
        if (folder / name).is_file():
            return read_file(folder / name)
    raise CheckpointError(f"{folder / 'diffusion_pytorch_model.safetensors'} is missing; give a folder of diffusers")


def read_file(path: Path) -> Weights:
    """The tensors of a checkpoint file.
    Raises CheckpointError if it is none or damaged, or holds more than tensors."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        with torch.serialization.safe_globals([(ModelCheckpoint, LIGHTNING)]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if not begins_as_torch_saves(path):
            raise CheckpointError(f"{path} is no checkpoint; give one of taming-transformers or LlamaGen") from error
        raise CheckpointError(
            f"{path} holds more than tensors, and nothing else of a pickle is opened; save its state_dict alone"
        ) from error
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing; give a checkpoint file or a folder") from error
    except Exception as error:  # a damaged archive fails in many ways
        raise CheckpointError(f"{path} is damaged ({first_sentence(error)}); get it again") from error
    for key in ("state_dict", "ema", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping):
        kind = type(content).__name__
        raise CheckpointError(f"{path} holds a {kind} and no weights by their names; give one with a state_dict")
    return {name: value for name, value in content.items() if isinstance(value, Tensor)}


def begins_as_torch_saves(path: Path) -> bool:
    """Whether a file may be one of torch: a zip archive, or a pickle as it was before."""
    with path.open("rb") as file:
        return file.read(2).startswith((b"PK", b"\x80"))


def without_trainers(weights: Weights) -> Weights:
    """Without the weights that only its training needed."""
    parts = ("encoder.", "decoder.", "quantize.embedding", "quant_conv.", "post_quant_conv.")
    return {name: tensor.float() for name, tensor in weights.items() if name.startswith(parts)}


def with_square_codes(weights: Weights, source: Path) -> Weights:
    """The same network with 1x1 convolutions that keep the number of channels, as ours do.

    Two linear maps are one. Behind the codebook the bias of the first must not reach beyond the picture's border, where
    the second pads with 0: so each code gets a last number that is 1, and the bias becomes a weight of it.
    Raises CheckpointError if a weight of these is missing."""
    for name in AROUND_THE_CODES:
        if name not in weights:
            raise CheckpointError(f"{source} has no {name}; give the whole checkpoint of a VQGAN")
    codes, latents = weights["quant_conv.weight"].shape[:2]
    if codes == latents:
        return weights
    into, out_of = weights["quant_conv.weight"].flatten(1), weights["post_quant_conv.weight"].flatten(1)
    last, first = weights["encoder.conv_out.weight"], weights["decoder.conv_in.weight"]
    conv_out = torch.einsum("dz,zckl->dckl", into, last)
    bias_out = into @ weights["encoder.conv_out.bias"] + weights["quant_conv.bias"]
    conv_in = torch.einsum("czkl,zd->cdkl", first, out_of)
    of_bias = torch.einsum("czkl,z->ckl", first, weights["post_quant_conv.bias"])[:, None]
    codebook = weights["quantize.embedding.weight"]
    square = torch.eye(codes + 1).reshape(codes + 1, codes + 1, 1, 1)
    nothing = torch.zeros(codes + 1)
    return {
        **weights,
        "encoder.conv_out.weight": torch.cat([conv_out, torch.zeros_like(conv_out[:1])]),
        "encoder.conv_out.bias": torch.cat([bias_out, torch.ones(1)]),
        "decoder.conv_in.weight": torch.cat([conv_in, of_bias], dim=1),
        "quantize.embedding.weight": torch.cat([codebook, torch.ones(len(codebook), 1)], dim=1),
        "quant_conv.weight": square,
        "quant_conv.bias": nothing,
        "post_quant_conv.weight": square.clone(),
        "post_quant_conv.bias": nothing.clone(),
    }


def renamed(theirs: Weights, coarsest_is_first: bool, source: Path) -> Weights:
    """The weights under our names.
    Raises CheckpointError that names the first that has no place."""
    places = {name: place for name in theirs if (place := place_of(name)) is not None}
    levels = 1 + max((place.level for place in places.values()), default=0)
    attended = {(p.side, p.level) for p in places.values() if p.kind == "attention"}
    ours: Weights = {}
    for name, tensor in theirs.items():
        if (place := places.get(name)) is not None:
            is_flipped = place.side == "decoder" and not coarsest_is_first
            level = levels - 1 - place.level if is_flipped else place.level
            new = in_level(place, level, (place.side, place.level) in attended, blocks_of(place, places.values()))
        else:
            new = elsewhere(name)
        if new is None:
            raise CheckpointError(f"{source} has a weight {name} that a VQGAN of ours has no place for")
        is_attention = re.search(r"\.(query|key|value|out)\.weight$", new) is not None
        ours[new] = tensor.flatten(1) if is_attention and tensor.ndim == 4 else tensor
    if "encoder.middle.1.query.weight" in ours:
        return ours
    return {name.replace(".middle.2.", ".middle.1."): tensor for name, tensor in ours.items()}


def place_of(name: str) -> Place | None:
    """Where a weight of a resolution belongs, if it is one."""
    side, _, rest = name.partition(".")
    found = LEVEL.fullmatch(rest)
    if found is None:
        return None
    level, kind, block, tail = found.groups()
    kind = KINDS.get(kind, "resample")
    return Place(side, int(level), kind, int(block or 0), tail)


def blocks_of(place: Place, places: Iterable[Place]) -> int:
    """How many ResNet blocks the level of a weight has."""
    same = [p for p in places if (p.side, p.level, p.kind) == (place.side, place.level, "resnet")]
    return 1 + max((p.block for p in same), default=-1)


def in_level(place: Place, level: int, has_attention: bool, blocks: int) -> str:
    """Our name of a weight of a resolution: blocks, each with attention behind it if there is any, then the step to the
    next resolution."""
    stride = 2 if has_attention else 1
    position = {
        "resnet": stride * place.block,
        "attention": stride * place.block + 1,
        "resample": stride * blocks,
    }[place.kind]
    tail = attention_name(place.rest) if place.kind == "attention" else shortcut_name(place.rest)
    return f"{place.side}.levels.{level}.{position}.{tail}"


def elsewhere(name: str) -> str | None:
    """Our name of a weight outside of the resolutions, if it has one."""
    module, _, kind = name.rpartition(".")
    if module in FINAL:
        return FINAL[module] if module == "quantize.embedding" else f"{FINAL[module]}.{kind}"
    side, _, rest = name.partition(".")
    if (found := MID.fullmatch(rest)) is not None:
        position = MIDDLE[found[1]]
        tail = attention_name(found[2]) if position == "1" else shortcut_name(found[2])
        return f"{side}.middle.{position}.{tail}"
    rest = rest.replace("conv_norm_out", "norm_out")
    return f"{side}.{rest}" if rest.partition(".")[0] in ("conv_in", "conv_out", "norm_out") else None


def attention_name(tail: str) -> str:
    """Our name of a weight of an attention."""
    module, _, kind = tail.rpartition(".")
    return f"{ATTENTION.get(module, module)}.{kind}"


def shortcut_name(tail: str) -> str:
    """Our name of a weight of a ResNet block, or of a step between resolutions."""
    return tail.replace("nin_shortcut", "shortcut").replace("conv_shortcut", "shortcut")


def config_of(ours: Weights, norm_groups: int) -> VQGANConfig:
    """The config that weights under our names were made for."""

    def level(side: str, number: int) -> list[str]:
        return [name for name in ours if name.startswith(f"{side}.levels.{number}.")]

    def channels(side: str) -> tuple[int, ...]:
        count = 1 + max(int(name.split(".")[2]) for name in ours if name.startswith(f"{side}.levels."))
        widths = tuple(ours[f"{side}.levels.{i}.0.conv1.weight"].shape[0] for i in range(count))
        return widths if side == "encoder" else widths[::-1]

    def blocks(side: str, number: int) -> int:
        return len([name for name in level(side, number) if name.endswith(".conv1.weight")])

    encoder, decoder = channels("encoder"), channels("decoder")
    has_middle = "encoder.middle.1.query.weight" in ours
    num_codes, code_dim = ours["quantizer.codebook"].shape
    return VQGANConfig(
        channels=encoder,
        blocks=blocks("encoder", 0),
        decoder_channels=None if decoder == encoder else decoder,
        decoder_blocks=blocks("decoder", 0),
        num_codes=num_codes,
        code_dim=code_dim,
        attention=has_middle,
        level_attention=any(name.endswith("query.weight") for name in level("decoder", 0)),
        norm_groups=norm_groups,
    )
