"""An evaluation from end to end, with a tiny model and tiny networks."""

import json
import shutil
from dataclasses import asdict, replace

import pytest
import torch
from PIL import Image

from muse.checkpoint import CheckpointError
from muse.evaluation.evaluate import (
    Evaluation,
    Networks,
    Subject,
    change_sampling,
    settings_of,
    sweep_values,
    with_sampling,
)
from muse.evaluation.lpips import Lpips
from muse.evaluation.metrics import FrechetReference
from muse.evaluation.protocols import EvaluationOptions
from muse.evaluation.report import file_names
from muse.evaluation.sources import PictureSet, read_prompts, reference_folder, requests_for
from muse.pipeline import Muse
from muse.processes import Shard
from muse.sampling import SamplingOptions

pytestmark = pytest.mark.xdist_group("evaluation")  # one worker sets up once what they share

OPTIONS = EvaluationOptions(metrics=("frechet", "pr", "alignment", "clip"), num=50, resamples=100, batch=25)
QUICK = SamplingOptions(steps=2, guidance=1.0)


@pytest.fixture(scope="module")
def subject(tiny_muse):
    return Subject("tiny", tiny_muse.vqgan, tiny_muse)


@pytest.fixture(scope="module")
def evaluation_in(subject, data_folder, exported, towers_folder, clip_folder):
    """An evaluation in a folder, with some options changed."""
    networks = Networks(features=str(exported), clip=str(clip_folder), alignment=str(towers_folder))

    def build(folder, networks=networks, real=data_folder, subject=subject, **changes):
        options = replace(OPTIONS, **changes)
        requests = requests_for(read_prompts(data_folder), options.num, options.per_prompt, options.seed)
        pictures = PictureSet.of_folder(reference_folder(real), options.resize) if real else None
        return Evaluation(subject, requests if options.draws else [], pictures, options, networks, folder)

    return build


@pytest.fixture(scope="module")
def done(evaluation_in, tmp_path_factory):
    """A finished evaluation: its folder and its report."""
    folder = tmp_path_factory.mktemp("done")
    evaluation = evaluation_in(folder)
    report = evaluation.run(QUICK)
    evaluation.write(report)
    return folder, report


def without_timing(folder):
    content = json.loads((folder / "report.json").read_text())
    assert content.pop("timing")
    markdown = (folder / "report.md").read_text().split("\nSpeed:")[0]
    return json.dumps(content), markdown, (folder / "sheet.png").read_bytes()


# -- what a report says ------------------------------------------------------------------------------------------------


def test_a_report_names_metrics_networks_numbers_and_intervals(done):
    folder, report = done
    names = [measurement.name for measurement in report.measurements]
    assert names == ["frechet_eye", "precision_eye", "recall_eye", "alignment", "clip_score"]
    for measurement in report.measurements:
        figure = measurement.figure
        assert figure.low <= figure.value <= figure.high
        assert measurement.num == 50
        assert measurement.num_real == (None if measurement.name in ("alignment", "clip_score") else 60)
        assert measurement.weights in (folder / "report.md").read_text()
        assert measurement.resize
    assert report.about["sampling"]["steps"] == 2
    assert report.timing["pictures_a_batch"] == 25
    assert report.timing["seconds_a_batch"] > 0
    assert "torch" in report.timing["machine"]


def test_every_picture_is_listed_with_its_scores_and_lies_where_the_report_says(done):
    folder, report = done
    assert len(report.pictures) == 50
    for picture in report.pictures:
        assert (folder / picture.file).is_file()
        assert set(picture.scores) == {"alignment", "clip_score"}
    mean = sum(picture.scores["clip_score"] for picture in report.pictures) / 50
    assert report.figure("clip_score").value == pytest.approx(mean, abs=1e-4)


def test_groups_of_prompts_have_figures_and_a_sheet_of_their_own(done):
    folder, report = done
    assert set(report.groups) == {"single", "cardinality"}
    singles = [picture.scores["alignment"] for picture in report.pictures if picture.group == "single"]
    measured = {measurement.name: measurement for measurement in report.groups["single"]}["alignment"]
    assert measured.num == len(singles) == 25
    assert measured.figure.value == pytest.approx(sum(singles) / 25, abs=1e-5)
    for name in ("sheet", "sheet-single", "sheet-cardinality"):
        assert Image.open(folder / f"{name}.png").width > 1000


def test_pictures_of_a_prompt_are_resampled_together_as_a_whole_and_in_their_group(
    evaluation_in, data_folder, tmp_path, monkeypatch
):
    shutil.copytree(data_folder, tmp_path / "data")
    texts = ["a red apple", "two dog", "a blue bird"]
    rows = [{"prompt": text, "group": "one" if text == texts[2] else "two"} for text in texts]
    (tmp_path / "data" / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    evaluation = evaluation_in(tmp_path, metrics=("clip",), num=None, per_prompt=2)
    evaluation.requests = requests_for(read_prompts(tmp_path / "data"), None, 2, 0)
    scores = iter([torch.tensor([30.0, 31.0, 20.0, 21.0, 10.0, 11.0])])
    monkeypatch.setattr(evaluation, "clip", lambda pictures, prompts: next(scores))
    evaluation.clip.weights = evaluation.clip.resize = ""
    report = evaluation.run(QUICK)
    assert report.figure("clip_score").value == 20.5
    (two,), (one,) = report.groups["two"], report.groups["one"]
    assert (two.figure.low, two.figure.value, two.figure.high) == (20.5, 25.5, 30.5)  # either prompt, or both
    assert (one.figure.low, one.figure.value, one.figure.high) == (10, 10.5, 11)  # one prompt has pictures only
    assert report.measurements[0].interval == two.interval == "bootstrap percentiles over prompts"
    assert one.interval == "bootstrap percentiles"


def test_a_report_made_twice_is_the_same_byte_for_byte(done, evaluation_in, tmp_path):
    folder, _ = done
    evaluation = evaluation_in(tmp_path)
    evaluation.write(evaluation.run(QUICK))
    assert without_timing(tmp_path) == without_timing(folder)


def test_ranks_together_and_a_run_that_was_stopped_make_the_same_report(done, evaluation_in, tmp_path, monkeypatch):
    folder, _ = done
    assert evaluation_in(tmp_path).run(QUICK, Shard(1, 2)) is None
    kept = list((tmp_path / "cache" / "pictures").rglob("*.png"))
    assert len(kept) == 25  # one of two batches; the other rank was stopped before it drew
    evaluation = evaluation_in(tmp_path)
    evaluation.write(evaluation.run(QUICK, Shard(0, 2)))
    assert without_timing(tmp_path) == without_timing(folder)


@pytest.mark.parametrize(("device", "num_drawn"), [("cpu", [4, 0]), ("cuda", [4, 4])])
def test_kept_pictures_are_of_a_batch_where_they_depend_on_it(device, num_drawn, evaluation_in, tmp_path, monkeypatch):
    monkeypatch.setattr(Subject, "device", property(lambda subject: torch.device(device)))
    drawn = []
    for batch in (2, 4):
        before = len(list(tmp_path.rglob("*.png")))
        evaluation_in(tmp_path, metrics=("clip",), num=4, batch=batch).draw(QUICK, Shard())
        drawn.append(len(list(tmp_path.rglob("*.png"))) - before)
    assert drawn == num_drawn


def test_another_seed_draws_other_pictures(done, evaluation_in, tmp_path):
    _, report = done
    other = evaluation_in(tmp_path, seed=1, metrics=("alignment",), num=4).run(QUICK)
    assert not {picture.seed for picture in other.pictures} & {picture.seed for picture in report.pictures}


def test_the_real_pictures_against_themselves_have_distance_0(evaluation_in, tmp_path, data_folder):
    evaluation = evaluation_in(tmp_path)
    same = PictureSet.of_folder(reference_folder(data_folder))
    assert evaluation.measure_frechet(evaluation.feature_network, same).figure.value == pytest.approx(0, abs=1e-6)
    precision, recall = evaluation.measure_precision_and_recall(same)
    assert precision.figure.value == recall.figure.value == 1


def test_which_real_pictures_there_are_moves_both_sides_of_a_redrawn_distance(evaluation_in, tmp_path):
    """Of a VQGAN that gives everything back as it was, every resample has the distance 0."""
    evaluation = evaluation_in(tmp_path, metrics=("rfrechet",))
    evaluation.redrawn = evaluation.the_real
    figure = evaluation.run().figure("rfrechet_eye")
    assert (figure.low, figure.value, figure.high) == pytest.approx((0, 0, 0), abs=1e-6)


def test_the_interval_of_a_redrawn_distance_is_the_spread_over_other_real_pictures(
    evaluation_in, tmp_path, monkeypatch
):
    evaluation, generator = evaluation_in(tmp_path, metrics=("rfrechet",)), torch.Generator().manual_seed(0)
    real, blurred = evaluation.the_real, replace(evaluation.the_real, resize=64)
    evaluation.redrawn = blurred
    basis = torch.randn(8, 8, generator=generator)
    draw = lambda: torch.randn(60, 8, generator=generator) @ basis  # noqa: E731

    def pair():
        features = draw()
        return {real: features, blurred: 0.9 * features + 0.05 * draw()}

    distances = [FrechetReference.of(each[real]).distance(each[blurred]) for each in (pair() for _ in range(200))]
    reaches = []
    for _ in range(20):
        features = pair()
        monkeypatch.setattr(evaluation, "features", lambda network, pictures, features=features: features[pictures])
        figure = evaluation.measure_redrawn_frechet(evaluation.feature_network).figure
        reaches.append(figure.high - figure.value)
    assert 0.5 < sum(reaches) / 20 / (1.96 * torch.tensor(distances).std().item()) < 2


def test_what_was_redrawn_of_pictures_read_otherwise_is_redrawn_again(evaluation_in, tmp_path, monkeypatch):
    evaluation = evaluation_in(tmp_path, metrics=("psnr",))
    before = evaluation.redrawn.paths
    monkeypatch.setattr("muse.evaluation.evaluate.READING", 1)
    del evaluation.redrawn
    assert not set(before) & set(evaluation.redrawn.paths)


# -- a VQGAN -----------------------------------------------------------------------------------------------------------


def test_a_vqgan_alone_is_measured_by_what_it_gives_back(tiny_folder, evaluation_in, tmp_path):
    from safetensors.torch import save_file

    from muse.training.perceptual import PerceptualLoss

    save_file(PerceptualLoss().state_dict(), tmp_path / "squeezenet.safetensors")
    subject = Subject.load(tiny_folder / "vqgan", "cpu")
    torch.save(Lpips().state_dict(), tmp_path / "alexnet.pth")
    networks = Networks(
        features=evaluation_in(tmp_path).networks.features,
        perceptual=str(tmp_path / "squeezenet.safetensors"),
        lpips=str(tmp_path / "alexnet.pth"),
    )
    metrics = ("rfrechet", "psnr", "ssim", "perceptual", "lpips")
    evaluation = evaluation_in(tmp_path, subject=subject, networks=networks, metrics=metrics, resize=64)
    report = evaluation.run()
    names = [measurement.name for measurement in report.measurements]
    assert names == ["rfrechet_eye", "psnr", "ssim", "perceptual", "lpips"]
    assert 0 < report.figure("psnr").value < 40
    assert report.figure("perceptual").value > 0
    assert report.figure("lpips").value > 0
    assert report.measurements[-1].weights.startswith("AlexNet sha256 ")
    evaluation.write(report)  # there are no drawn pictures to show
    assert not (tmp_path / "sheet.png").exists()


def test_a_vqgan_alone_draws_no_prompts(tiny_folder, evaluation_in, tmp_path):
    with pytest.raises(ValueError, match=r"is a VQGAN, which draws no prompts, and clip needs that"):
        evaluation_in(tmp_path, subject=Subject.load(tiny_folder / "vqgan", "cpu"), metrics=("clip",))


# -- what goes wrong ---------------------------------------------------------------------------------------------------


def test_metrics_without_weights_are_skipped_with_a_sentence_and_the_others_run(done, evaluation_in, tmp_path):
    shutil.copytree(done[0] / "cache", tmp_path / "cache")  # with the pictures, so that none is drawn again
    networks = evaluation_in(tmp_path).networks
    some = replace(networks, clip="no/such-clip", inception=None)
    evaluation = evaluation_in(tmp_path, networks=some, metrics=("fid", "is", "clip", "alignment"))
    report = evaluation.run(QUICK)
    evaluation.write(report)
    assert [measurement.name for measurement in report.measurements] == ["alignment"]
    assert set(report.skipped) == {"fid", "is", "clip"}
    assert "weights-inception-2015-12-05-6726825d.pth" in report.skipped["fid"]
    assert report.skipped["fid"] in (tmp_path / "report.md").read_text()


def test_weights_of_another_network_are_refused_before_anything_is_drawn(evaluation_in, tmp_path):
    torch.save({"fc.weight": torch.zeros(2, 2)}, tmp_path / "resnet.pth")
    folder, networks = tmp_path / "out", evaluation_in(tmp_path).networks
    wrong = replace(networks, inception=str(tmp_path / "resnet.pth"))
    with pytest.raises(CheckpointError, match=r"resnet.pth holds the weights of another network"):
        evaluation_in(folder, networks=wrong, metrics=("clip", "fid")).run(QUICK)
    assert not folder.exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num": 49}, "frechet needs at least 50 drawn pictures and 49 came"),
        ({"num": 1, "metrics": ("clip",)}, "clip needs at least 2 drawn pictures and 1 came"),
        ({"metrics": ("is",), "num": 10}, "is needs at least 50 drawn pictures"),
        ({"metrics": ("pr",), "neighbours": 60}, "pr needs at least 61 drawn pictures and 50 came"),
        ({"real": None}, "no real pictures came"),
    ],
)
def test_too_few_pictures_are_refused_before_anything_is_drawn(changes, said, evaluation_in, tmp_path):
    with pytest.raises(ValueError, match=said):
        evaluation_in(tmp_path, **changes)
    assert not list(tmp_path.iterdir())


def test_too_few_real_pictures_are_refused_with_how_many_are_needed(evaluation_in, data_folder, tmp_path):
    few = tmp_path / "few"
    few.mkdir()
    for i in range(3):
        shutil.copy(data_folder / "reference" / f"{i:03}.png", few)
    with pytest.raises(ValueError, match="frechet needs at least 50 real pictures and 3 came; give more"):
        evaluation_in(tmp_path, real=few)


def test_real_pictures_of_another_size_are_refused_unless_all_are_resized(evaluation_in, data_folder, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    for path in (data_folder / "reference").iterdir():
        Image.open(path).resize((100, 100)).save(small / path.name)
    with pytest.raises(ValueError, match=r"real pictures are 100 x 100 and the model draws 128 x 128; give --resize"):
        evaluation_in(tmp_path, real=small)
    with pytest.raises(ValueError, match=r"the VQGAN needs multiples of 16; give --resize 96"):
        evaluation_in(tmp_path, real=small, metrics=("psnr",))
    assert evaluation_in(tmp_path, real=small, resize=64).real.size() == (64, 64)


# -- sweeps ------------------------------------------------------------------------------------------------------------


def test_a_sweep_writes_a_report_a_value_a_table_and_a_plot(evaluation_in, tmp_path):
    some = replace(evaluation_in(tmp_path).networks, clip="none")
    evaluation = evaluation_in(tmp_path, networks=some, metrics=("frechet", "alignment", "clip"))
    axis, settings = sweep_values("guidance=0:4:4", replace(QUICK, steps=1))
    cells = evaluation.sweep(axis, settings)
    assert [value for value, _ in cells] == [0.0, 4.0]
    assert [report.about["sampling"]["guidance"] for _, report in cells] == [0.0, 4.0]
    assert cells[0][1].figure("frechet_eye") != cells[1][1].figure("frechet_eye")
    for name in ("guidance-0/report.json", "guidance-4/sheet.png", "sweep.json", "sweep.md"):
        assert (tmp_path / name).is_file()
    assert "`clip` was not measured: there is no folder none; give" in (tmp_path / "sweep.md").read_text()
    assert Image.open(tmp_path / "sweep.png").width > 800
    assert json.loads((tmp_path / "sweep.json").read_text())["axis"] == "guidance"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("guidance=0:3", [0.0, 1.0, 2.0, 3.0]),
        ("steps=4:24:10", [4, 14, 24]),
        ("temperature=0.5:0.7:0.1", [0.5, 0.6, 0.7]),
        ("sampler=confidence,halton", ["confidence", "halton"]),
        ("top_k=5,10", [5, 10]),
    ],
)
def test_a_sweep_is_a_range_or_a_list(text, wanted):
    axis, settings = sweep_values(text, SamplingOptions())
    assert [value for value, _ in settings] == wanted
    assert [getattr(options, axis) for _, options in settings] == wanted


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("guidance", "give OPTION=FROM:TO"),
        ("guidance=0:1:2:3", "give OPTION=FROM:TO"),
        ("guidance=0:b", "wanted numbers around the colons"),
        ("guidance=8:0", "wanted a last value above the first"),
        ("guidance=0:1:0", "wanted a last value above the first"),
        ("beauty=0:1", "names no sampling option; give NAME=VALUE of steps"),
        ("steps=0:1", "steps is 0; give"),
        ("steps=0.5:1.5", "steps is '0.5'; give a whole number"),
    ],
)
def test_a_sweep_that_cannot_be_read_is_refused_in_one_sentence(text, said):
    with pytest.raises(ValueError, match=said):
        sweep_values(text, SamplingOptions())


def test_sampling_options_are_changed_by_words():
    changed = with_sampling(SamplingOptions(), ["steps=3", "guidance_ramp=constant", "choice_noise=0", "refresh=1"])
    assert changed == SamplingOptions(steps=3, guidance_ramp="constant", choice_noise=0.0, refresh=1)
    assert with_sampling(changed, []) == changed


def test_options_of_super_resolution_are_changed_by_words_too(cascade_folder, tiny_muse):
    cascade = Muse.from_pretrained(cascade_folder)
    before = cascade.superres_defaults
    sampling = change_sampling(cascade, ["steps=3", "superres_steps=2"])
    assert sampling == replace(cascade.defaults, steps=3)
    assert cascade.superres_defaults == replace(before, steps=2)
    said = r"^superres_steps=2 came and nothing is enlarged by super-resolution; leave it out$"
    with pytest.raises(ValueError, match=said):
        change_sampling(cascade, ["superres_steps=2"], size="low")
    with pytest.raises(ValueError, match=said):
        change_sampling(tiny_muse, ["superres_steps=2"])


def test_the_pictures_of_a_cascade_depend_on_its_super_resolution_options_too(tiny_muse, cascade_folder):
    cascade = Muse.from_pretrained(cascade_folder)
    before = settings_of(cascade, QUICK)
    cascade.superres_defaults = replace(cascade.superres_defaults, guidance=7.5)
    assert settings_of(cascade, QUICK) != before
    assert settings_of(tiny_muse, QUICK) == {"sampling": asdict(QUICK)}


def test_the_small_pictures_of_a_cascade_are_those_of_its_base(evaluation_in, tiny_muse, cascade_folder, tmp_path):
    cascade = Muse.from_pretrained(cascade_folder, "cpu", "float32")
    subject = Subject("cascade", cascade.vqgan, cascade)
    with pytest.raises(ValueError, match=r"real pictures are 128 x 128 and the model draws 256 x 256; give --resize"):
        evaluation_in(tmp_path, subject=subject)
    few = {"metrics": ("alignment",), "num": 3}
    low = evaluation_in(tmp_path, subject=subject, size="low", **few).draw(QUICK, Shard())
    assert low.drawn.size() == (128, 128)
    plain = evaluation_in(tmp_path / "plain", **few).draw(QUICK, Shard())
    pairs = zip(low.drawn.read(range(3)), plain.drawn.read(range(3)), strict=True)
    assert all(one.tobytes() == other.tobytes() for one, other in pairs)


def test_sheets_of_groups_have_short_names_of_their_own():
    names = file_names(["A/b", "a b", "x" * 300, "x" * 299 + "y", "!"])
    assert list(names.values()) == ["a-b", "a-b-2", "x" * 60, "x" * 60 + "-2", "group"]
