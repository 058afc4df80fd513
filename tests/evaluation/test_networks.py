"""Networks that look at pictures: their weights, and what is done to pictures before."""

import json
import shutil
from typing import Any, cast

import pytest
import torch
from safetensors.torch import save_file

from muse.checkpoint import CheckpointError
from muse.evaluation.alignment import AlignmentScorer, AlignmentTowers, ranks_of_own
from muse.evaluation.clip import ClipScorer
from muse.evaluation.inception import Inception, resize_as_tensorflow_1
from muse.evaluation.lpips import Lpips
from muse.evaluation.networks import MissingWeights, load_features, load_inception, stack
from tests.evaluation.tiny_networks import TinyFeatures, noise

IMAGES = [noise(i) for i in range(5)]


@pytest.fixture(scope="module")
def inception():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Inception().eval()


@pytest.fixture(scope="module")
def inception_file(inception, tmp_path_factory):
    path = tmp_path_factory.mktemp("inception") / "inception.pth"
    torch.save({n: t for n, t in inception.state_dict().items() if not n.endswith("num_batches_tracked")}, path)
    return path


# -- Inception-v3 ------------------------------------------------------------------------------------------------------


def test_inception_has_the_published_number_of_weights_and_2048_features(inception):
    # 23,834,568 with the usual 1000 labels, and 8 labels more
    assert sum(p.numel() for p in inception.parameters()) == 23_834_568 + 8 * (2048 + 1)
    with torch.no_grad():
        assert inception(stack(IMAGES[:1])).shape == (1, 2048)


def test_inception_equals_torch_fidelitys_with_the_same_weights(inception, torch_fidelity, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(inception.state_dict(), path)
    module, names = torch_fidelity("feature_extractor_inceptionv3"), ["2048", "logits_unbiased"]
    theirs = module.FeatureExtractorInceptionV3("ours", names, feature_extractor_weights_path=str(path))
    pictures = stack(IMAGES)
    with torch.no_grad():
        features, logits = theirs((pictures * 255).round().to(torch.uint8))
        ours = inception(pictures)
    torch.testing.assert_close(ours, features, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(inception.labels(ours), logits, rtol=1e-3, atol=1e-5)


def test_pictures_are_resized_from_the_corner_as_tensorflow_1_did():
    row = torch.tensor([0.0, 1.0]).reshape(1, 1, 1, 2).expand(1, 3, 2, 2)
    assert resize_as_tensorflow_1(row, 4)[0, 0, 0].tolist() == [0.0, 0.5, 1.0, 1.0]


def test_only_the_published_weights_make_a_figure_fid(inception_file, monkeypatch):
    other = load_inception(inception_file)
    assert other.frechet_name == "frechet_inception_other_weights"
    monkeypatch.setattr("muse.evaluation.networks.INCEPTION_SHA256", other.key)
    published = load_inception(inception_file)
    assert published.frechet_name == "fid"
    assert "sha256" in published.weights
    assert "TensorFlow 1" in published.resize


def test_a_picture_has_the_same_features_alone_and_among_others(exported):
    network = load_features(exported)
    assert network([IMAGES[2]])[0].equal(network(IMAGES)[2])


def test_pictures_that_are_prepared_otherwise_have_other_features_in_the_cache(clip_folder, tmp_path):
    shutil.copytree(clip_folder, tmp_path / "clip")
    before = ClipScorer.load(str(tmp_path / "clip")).weights
    assert ClipScorer.load(str(tmp_path / "clip")).weights == before
    file = tmp_path / "clip/preprocessor_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "image_mean": [0.0, 0.0, 0.0]}))
    assert ClipScorer.load(str(tmp_path / "clip")).weights != before


# -- weights that are missing, or of another network -------------------------------------------------------------------


@pytest.mark.parametrize("where", [None, "no/such/file.pth", "nowhere"])
def test_missing_inception_weights_are_one_sentence_that_names_the_file_to_fetch(where):
    with pytest.raises(MissingWeights, match=r"fetch weights-inception-2015-12-05-6726825d.pth .* --inception"):
        load_inception(where)


@pytest.mark.parametrize(
    ("load", "flag"),
    [(load_features, "--features"), (ClipScorer.load, "--clip"), (AlignmentScorer.load, "--alignment")],
)
def test_a_missing_network_is_one_sentence_that_names_the_option(load, flag, tmp_path):
    with pytest.raises(MissingWeights, match=flag) as error:
        load(tmp_path / "nothing")
    assert "\n" not in str(error.value)


def test_weights_of_another_network_are_refused_by_the_name_of_one(tmp_path, inception):
    save_file(TinyFeatures().state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match=r"of another network than Inception-v3 of FID: Conv2d_1a_3x3.bn.bias"):
        load_inception(tmp_path / "other.safetensors")


def test_a_file_that_holds_no_weights_is_refused(tmp_path):
    (tmp_path / "text.pth").write_text("a text")
    with pytest.raises(CheckpointError, match="holds no weights"):
        load_inception(tmp_path / "text.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match="holds a list"):
        load_inception(tmp_path / "list.pth")
    (tmp_path / "text.pt2").write_text("a text")
    with pytest.raises(CheckpointError, match="is no exported network"):
        load_features(tmp_path / "text.pt2")


def test_a_folder_of_another_network_is_refused(tiny_folder, tmp_path):
    with pytest.raises(CheckpointError, match="holds no CLIP"):
        ClipScorer.load(tiny_folder / "text_encoder")
    (tmp_path / "towers").mkdir()
    (tmp_path / "towers" / "config.json").write_text('{"class": "VQGAN"}')
    with pytest.raises(CheckpointError, match="describes a VQGAN; wanted a AlignmentTowers"):
        AlignmentScorer.load(tmp_path)


def test_figures_are_of_float32_convolutions(inception_file, clip_folder, convolved_in):
    load_inception(inception_file)(IMAGES[:1])
    num = len(convolved_in)
    ClipScorer.load(clip_folder)(IMAGES[:1], PROMPTS[:1])
    assert len(convolved_in) > num > 90
    Lpips()(torch.rand(1, 3, 64, 64), torch.rand(1, 3, 64, 64))
    assert set(convolved_in) == {"ieee"}
    assert cast(Any, torch.backends.cudnn).conv.fp32_precision == "tf32"


# -- CLIP and alignment ------------------------------------------------------------------------------------------------

PROMPTS = ["a red apple", "two dog", "a dog on the apple , 3d style", "the", "blue"]


def test_the_clip_score_is_that_of_transformers_own_logits(clip_folder):
    from transformers import AutoTokenizer, CLIPModel
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    theirs = CLIPModel.from_pretrained(clip_folder).eval()
    words = AutoTokenizer.from_pretrained(clip_folder)(PROMPTS, padding=True, return_tensors="pt")
    pixels = CLIPImageProcessorPil.from_pretrained(clip_folder)(images=IMAGES, return_tensors="pt")
    with torch.no_grad():
        seen = theirs(
            input_ids=words["input_ids"], attention_mask=words["attention_mask"], pixel_values=pixels["pixel_values"]
        )
        own = seen.logits_per_image.diagonal() / theirs.logit_scale.exp()
    scores = ClipScorer.load(clip_folder)(IMAGES, PROMPTS)
    assert scores.tolist() == pytest.approx((100 * own.clamp(min=0)).tolist(), rel=1e-4, abs=1e-4)
    assert len(set(scores.tolist())) > 1


def test_alignment_is_a_cosine_of_each_picture_and_its_own_prompt(towers_folder):
    scorer = AlignmentScorer.load(towers_folder)
    scores = scorer(IMAGES, PROMPTS)
    assert (scores.abs() <= 1).all()
    assert scores[1].item() == pytest.approx(scorer(IMAGES[1:2], PROMPTS[1:2]).item(), abs=1e-5)
    assert scorer(IMAGES, PROMPTS[::-1])[1] != scores[1]


def test_towers_learn_which_picture_belongs_to_which_text():
    from muse.evaluation.alignment import AlignmentConfig

    generator = torch.Generator().manual_seed(0)
    things = torch.randn(64, 6, generator=generator)
    texts = things @ torch.randn(6, 20, generator=generator)
    pictures = things @ torch.randn(6, 30, generator=generator)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        towers = AlignmentTowers(AlignmentConfig(text_dim=20, image_dim=30, dim=16))
    optimizer = torch.optim.Adam(towers.parameters(), lr=0.02)
    for _ in range(100):
        optimizer.zero_grad()
        towers(texts, pictures).backward()
        optimizer.step()
    ranks = ranks_of_own(towers.texts(texts), towers.images(pictures), torch.arange(64))
    assert (ranks == 0).float().mean() > 0.9


def test_of_equals_the_own_candidate_has_the_worst_rank():
    queries, candidates = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert ranks_of_own(queries, candidates, torch.tensor([0])).tolist() == [1]
