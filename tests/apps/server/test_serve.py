"""`muse serve`, as the official client of the OpenAI API meets it, on loopback."""

import base64
import gc
import hashlib
import io
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

import openai
import pytest
from PIL import Image, PngImagePlugin

import muse
from muse.apps.cli import main
from muse.apps.server.asking import drawings
from muse.apps.server.gate import read_keys
from muse.apps.server.logs import JsonLines
from muse.apps.server.options import Serve
from muse.apps.server.pictures import PictureStore
from muse.apps.server.wire import EditRequest, GenerationRequest
from muse.apps.settings import Settings
from muse.sampling import EditOptions
from muse.vocabulary import Vocabulary

APPLE = "a red apple"


def opened(content):
    return Image.open(io.BytesIO(content))


def picture_of(shown):
    """The picture of an answer or of an event."""
    return opened(base64.b64decode(shown.b64_json))


def alone(tiny_muse, prompt, seed, negatives=None, **options):
    """The picture that `generate` draws, by itself."""
    (image,) = tiny_muse.generate([prompt], [seed], negatives=negatives, options=replace(tiny_muse.defaults, **options))
    return image.tobytes()


def get(url, **headers):
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=20) as answer:
        return answer.read(), answer.headers


def metrics(served):
    """Samples of /metrics by name and labels."""
    lines = get(f"{served.url}/metrics")[0].decode().splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}


# -- drawing ------------------------------------------------------------------------------------------------------


def test_the_official_client_draws_and_gets_the_very_pictures_of_generate(served, tiny_muse):
    own = {"seed": 3, "steps": 3, "guidance": 1.0, "negative_prompt": "blue"}
    answer = served.client().images.generate(model="tiny", prompt=APPLE, n=2, size="128x128", extra_body=own)
    assert (answer.size, answer.output_format, answer.background) == ("128x128", "png", "opaque")
    assert answer.usage.output_tokens == 2 * 64
    for i, shown in enumerate(answer.data):
        assert picture_of(shown).tobytes() == alone(tiny_muse, APPLE, 3 + i, ["blue"], steps=3, guidance=1.0)


def test_the_best_of_some_is_drawn_and_told_by_its_seed(served, tiny_muse):
    few = {"steps": 2, "guidance": 1.0, "seed": 3}
    answer = served.client().images.generate(prompt=APPLE, n=2, extra_body=few | {"best_of": 4})
    chosen = tiny_muse.choose([APPLE] * 2, [3, 7], 4, options=replace(tiny_muse.defaults, steps=2, guidance=1.0))
    assert [shown.seed for shown in answer.data] == chosen
    for shown in answer.data:
        image = picture_of(shown)
        assert image.tobytes() == alone(tiny_muse, APPLE, shown.seed, steps=2, guidance=1.0)
        assert (image.info["seed"], image.info["best_of"]) == (str(shown.seed), "4")
    assert answer.usage.output_tokens == 2 * (1 + 4) * 64
    with served.client().images.generate(prompt=APPLE, stream=True, extra_body=few | {"best_of": 4}) as events:
        (event,) = events
    assert event.seed == chosen[0]
    with pytest.raises(openai.BadRequestError, match=r"best_of.*at most 16"):
        served.client().images.generate(prompt=APPLE, extra_body={"best_of": 17})


def test_an_answer_says_in_which_words_a_prompt_was_drawn(served, tiny_muse, monkeypatch):
    monkeypatch.setattr(tiny_muse, "vocabulary", Vocabulary(("dog",), frozenset(["red", "apple", "dog"])))
    images = served.client().images
    few = {"steps": 2, "guidance": 1.0, "seed": 3}
    first, second = images.generate(prompt="a blue", n=2, extra_body=few).data
    (literal,) = images.generate(prompt="a blue", extra_body=few | {"literal": True}).data
    (known,) = images.generate(prompt="a dog", extra_body=few).data
    assert first.revised_prompt == second.revised_prompt == "a dog"
    assert picture_of(first).tobytes() == picture_of(known).tobytes() != picture_of(literal).tobytes()
    assert literal.revised_prompt is known.revised_prompt is None
    (event,) = images.generate(prompt="a blue", stream=True, extra_body=few)
    assert event.revised_prompt == "a dog"
    with pytest.raises(openai.BadRequestError, match="sub-words"):
        images.generate(prompt="a blue and " * 200)


def test_a_png_says_all_that_it_takes_to_make_it_again(served, tiny_muse):
    answer = served.client().images.generate(prompt=APPLE, extra_body={"negative_prompt": "blue", "top_k": 9})
    picture = picture_of(answer.data[0])
    assert isinstance(picture, PngImagePlugin.PngImageFile)
    settings = Settings.from_text(picture.text)
    assert settings.seed == answer.data[0].seed
    again = tiny_muse.generate([settings.prompt], [settings.seed], negatives=["blue"], options=settings.options)
    assert again[0].tobytes() == picture.tobytes()


@pytest.mark.parametrize("kind", ["png", "webp", "jpeg"])
def test_pictures_come_in_the_format_that_is_asked_for(kind, served):
    answer = served.client().images.generate(prompt=APPLE, output_format=kind, size="auto")
    assert answer.output_format == kind
    assert picture_of(answer.data[0]).format == kind.upper()


def test_compression_makes_a_jpeg_smaller(served):
    def size(compression):
        answer = served.client().images.generate(
            prompt=APPLE, output_format="jpeg", output_compression=compression, extra_body={"seed": 1}
        )
        return len(answer.data[0].b64_json)

    assert size(10) < size(90)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 2),
        ("guidance", 0.5),
        ("guidance_ramp", "constant"),
        ("sampler", "halton"),
        ("temperature", 0.1),
        ("top_k", 2),
        ("choice_noise", 0.0),
        ("remask", 0.5),
        ("refresh", 1),
    ],
)
def test_every_option_of_our_own_reaches_the_picture(name, value, served, tiny_muse):
    answer = served.client().images.generate(prompt=APPLE, extra_body={"seed": 1, name: value})
    assert picture_of(answer.data[0]).tobytes() == alone(tiny_muse, APPLE, 1, **{name: value})


def test_a_picture_can_be_had_by_an_address_that_nobody_guesses(served):
    answer = served.client().images.generate(prompt=APPLE, n=2, response_format="url", output_format="webp")
    addresses = [shown.url for shown in answer.data]
    assert len(set(addresses)) == 2
    assert all(re.fullmatch(re.escape(served.url) + r"/pictures/[\w-]{32}\.webp", address) for address in addresses)
    content, headers = get(addresses[0])
    assert (opened(content).format, headers["Content-Type"]) == ("WEBP", "image/webp")
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(served.url + "/pictures/" + "A" * 32 + ".webp")


def test_addresses_begin_with_the_public_name_if_there_is_one(serving):
    served = serving(public_url="https://pictures.example.org/muse/")
    answer = served.client().images.generate(prompt=APPLE, response_format="url")
    assert answer.data[0].url.startswith("https://pictures.example.org/muse/pictures/")


def test_the_store_of_pictures_forgets_the_oldest_for_size_and_for_age():
    clock = iter([0.0] * 100)
    store = PictureStore(10, 60, lambda: next(clock))
    names = [store.put(bytes(4), "png") for _ in range(3)]
    assert [store.get(name) is not None for name in names] == [False, True, True]
    assert store.num_bytes == 8
    store.clock = lambda: 61.0
    assert [store.get(name) for name in names] == [None] * 3
    assert store.num_bytes == 0


# -- streams ------------------------------------------------------------------------------------------------------


def test_the_official_client_streams_partial_pictures_and_then_the_picture(served, tiny_muse):
    events = list(served.client().images.generate(prompt=APPLE, stream=True, partial_images=2, extra_body={"seed": 5}))
    assert [event.type.rpartition(".")[2] for event in events] == ["partial_image", "partial_image", "completed"]
    assert [event.partial_image_index for event in events[:2]] == [0, 1]
    assert picture_of(events[-1]).tobytes() == alone(tiny_muse, APPLE, 5)
    grey = [picture_of(event).tobytes().count(bytes([224] * 48)) for event in events]
    assert grey[0] > grey[1] > grey[2]
    assert events[-1].usage.total_tokens == events[-1].usage.input_tokens + 64


def test_a_stream_without_partial_pictures_is_the_picture_alone(served):
    events = list(served.client().images.generate(prompt=APPLE, stream=True))
    assert [event.type for event in events] == ["image_generation.completed"]


def test_what_cannot_be_drawn_is_refused_before_a_stream_begins(served):
    with pytest.raises(openai.BadRequestError, match="sub-words"):
        served.client().images.generate(prompt="apple " * 200, stream=True, partial_images=1)


def test_a_fault_after_a_stream_has_begun_reaches_the_client_as_an_error(serving, tiny_muse, monkeypatch):
    served, preview = serving(), tiny_muse.preview

    def fails_later(report):
        if report.step.index > 2:
            raise FloatingPointError("NaN")
        return preview(report)

    monkeypatch.setattr(tiny_muse, "preview", fails_later)
    stream = served.client().images.generate(prompt=APPLE, stream=True, partial_images=3)
    assert next(stream).type == "image_generation.partial_image"
    with pytest.raises(openai.APIError, match="could not be drawn"):
        list(stream)


# -- models and what goes wrong -----------------------------------------------------------------------------------


def test_the_one_model_is_listed_and_no_other_is_there(served):
    client = served.client()
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").sizes == ["128x128"]
    with pytest.raises(openai.NotFoundError) as error:
        client.models.retrieve("gpt-image-1")
    assert error.value.code == "model_not_found"


@pytest.mark.parametrize(
    ("asked", "param", "code"),
    [
        ({"prompt": " "}, "prompt", "invalid_value"),
        ({"prompt": "a" * 32_001}, "prompt", "invalid_value"),
        ({"prompt": "apple " * 200}, None, "invalid_value"),
        ({"n": 0}, "n", "invalid_value"),
        ({"n": 11}, "n", "invalid_value"),
        ({"size": "1024x1024"}, "size", "invalid_value"),
        ({"output_format": "gif"}, "output_format", "invalid_value"),
        ({"output_compression": 50}, "output_compression", "invalid_value"),
        ({"background": "transparent"}, "background", "invalid_value"),
        ({"quality": "high"}, "quality", "invalid_value"),
        ({"style": "vivid"}, "style", "unknown_parameter"),
        ({"partial_images": 1}, "partial_images", "invalid_value"),
        ({"stream": True, "n": 2}, "n", "invalid_value"),
        ({"stream": True, "response_format": "url"}, "response_format", "invalid_value"),
        ({"extra_body": {"steps": 101}}, "steps", "invalid_value"),
        ({"extra_body": {"seed": 2**63}}, "seed", "invalid_value"),
        ({"extra_body": {"seed": 2**63 - 1}, "n": 2}, "seed", "invalid_value"),
        ({"extra_body": {"sampler": "magic"}}, "sampler", "invalid_value"),
        ({"extra_body": {"flavour": "sweet"}}, "flavour", "unknown_parameter"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_the_apis_own_words(asked, param, code, served):
    with pytest.raises(openai.BadRequestError) as error:
        served.client().images.generate(**{"prompt": APPLE, **asked})
    assert (error.value.param, error.value.code, error.value.type) == (param, code, "invalid_request_error")
    assert len(str(error.value)) < 500


def test_a_fault_of_the_model_is_a_500_that_tells_no_secrets_and_the_next_picture_is_drawn(
    served, tiny_muse, monkeypatch
):
    with monkeypatch.context() as patch:
        patch.setattr(tiny_muse, "to_images", lambda tokens: 1 / 0)
        with pytest.raises(openai.InternalServerError) as error:
            served.client().images.generate(prompt=APPLE)
    assert "division" not in str(error.value)
    assert error.value.type == "server_error"
    served.client().images.generate(prompt=APPLE)


# -- many clients -------------------------------------------------------------------------------------------------


def test_requests_that_meet_are_drawn_together_and_each_gets_the_picture_it_would_get_alone(
    serving, tiny_muse, brake, aside
):
    served = serving(max_batch=3)
    wishes = [(f"{colour} apple", seed) for colour in ("a red", "the blue") for seed in (1, 2)]
    first = aside(served.client().images.generate, prompt=APPLE)
    assert brake.is_held.wait(20)
    answers = [
        aside(served.client().images.generate, prompt=prompt, extra_body={"seed": seed}) for prompt, seed in wishes
    ]
    other = aside(served.client().images.generate, prompt=APPLE, extra_body={"seed": 9, "steps": 2})
    wait_for_waiting(served, 5)
    brake.may_go.set()
    first.result()
    together = [picture_of(answer.result().data[0]).tobytes() for answer in answers]
    apart = picture_of(other.result().data[0]).tobytes()
    # Three steps compute both branches, on a processor of each picture by itself: of one, of three and of one of a
    # kind, and of one in two steps.
    one = [1, 2, 1, 1, 2, 2]
    assert sorted(brake.rows) == sorted([*(5 * one), 1, 2])
    assert metrics(served)["muse_batch_pictures_count"] == 4
    assert together == [alone(tiny_muse, prompt, seed) for prompt, seed in wishes]
    assert apart == alone(tiny_muse, APPLE, 9, steps=2)


@pytest.mark.parametrize(("options", "batches"), [({}, 3), ({"max_batch": 8}, 1)])
def test_on_a_processor_pictures_are_drawn_one_by_one_if_nothing_else_is_said(serving, options, batches):
    served = serving(**options)
    assert len(served.client().images.generate(prompt=APPLE, n=3).data) == 3
    assert metrics(served)["muse_batch_pictures_count"] == batches


def test_on_a_gpu_some_are_drawn_at_once_if_nothing_else_is_said():
    assert (Serve().batch(on_gpu=True), Serve(max_batch=2).batch(on_gpu=True)) == (8, 2)


def test_a_full_queue_sends_clients_away_for_a_while(serving, brake, aside):
    served = serving(max_queue=2)
    running = aside(served.client().images.generate, prompt=APPLE)
    assert brake.is_held.wait(20)
    waiting = aside(served.client().images.generate, prompt=APPLE, n=2)
    wait_for_waiting(served, 2)
    with pytest.raises(openai.RateLimitError) as error:
        served.client().images.generate(prompt=APPLE)
    assert int(error.value.response.headers["Retry-After"]) >= 1
    assert error.value.type == "rate_limit_error"
    brake.may_go.set()
    assert len(waiting.result().data) == 2
    assert running.result().data
    served.client().images.generate(prompt=APPLE)
    with pytest.raises(openai.BadRequestError, match="at most 2 pictures"):
        served.client().images.generate(prompt=APPLE, n=3)


def test_a_client_that_goes_away_before_its_turn_is_never_drawn(serving, brake, aside):
    served = serving()
    running = aside(served.client().images.generate, prompt=APPLE)
    assert brake.is_held.wait(20)
    impatient = served.client().with_options(timeout=0.5)
    with pytest.raises(openai.APITimeoutError):
        impatient.images.generate(prompt=APPLE, extra_body={"steps": 2})
    wait_for_waiting(served, 0)
    brake.may_go.set()
    running.result()
    assert brake.rows == [1, 2, 1, 1, 2, 2]
    assert metrics(served)['muse_requests_total{route="/v1/images/generations",status="499"}'] == 1


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_client_that_goes_away_stops_the_drawing_between_two_steps(is_stream, serving, brake, caplog):
    served = serving()
    with pytest.raises(openai.APITimeoutError):
        served.client().with_options(timeout=0.5).images.generate(prompt=APPLE, stream=is_stream)
    outcome = 'muse_requests_total{route="/v1/images/generations",status="499"}'
    wait_until(lambda: metrics(served).get(outcome) == 1)
    brake.may_go.set()
    wait_until(lambda: metrics(served).get('muse_batches_total{outcome="abandoned"}') == 1)
    assert brake.rows == [1]
    gc.collect()
    assert not [record for record in caplog.records if record.name == "asyncio"]


def test_a_stream_that_is_closed_in_its_middle_stops_the_drawing(serving, brake, tiny_muse):
    served = serving()
    brake.may_go.set()
    with served.client().images.generate(
        prompt=APPLE, stream=True, partial_images=1, extra_body={"steps": 100}
    ) as stream:
        next(stream)
        brake.may_go.clear()
    time.sleep(0.2)
    brake.may_go.set()
    wait_until(lambda: metrics(served).get('muse_batches_total{outcome="abandoned"}') == 1)
    assert len(brake.rows) < 100


def test_a_server_that_is_told_to_stop_finishes_what_has_begun(serving, tiny_muse, brake, aside):
    served = serving()
    answers = [aside(served.client().images.generate, prompt=APPLE, extra_body={"seed": 1})]
    assert brake.is_held.wait(20)
    answers.append(aside(served.client().images.generate, prompt=APPLE, extra_body={"seed": 2, "steps": 2}))
    wait_for_waiting(served, 1)
    served.uvicorn.should_exit = True
    wait_until(lambda: not served.uvicorn.servers[0].is_serving())
    with pytest.raises(openai.APIConnectionError):
        served.client().images.generate(prompt=APPLE)
    brake.may_go.set()
    assert picture_of(answers[0].result().data[0]).tobytes() == alone(tiny_muse, APPLE, 1)
    assert picture_of(answers[1].result().data[0]).tobytes() == alone(tiny_muse, APPLE, 2, steps=2)
    served.thread.join(20)
    assert not served.worker.is_ready


def test_who_still_waits_when_the_time_to_stop_is_over_is_told_so(serving, brake, aside, caplog):
    served = serving(shutdown_seconds=1)
    served.uvicorn.config.timeout_graceful_shutdown = 1
    brake.may_go.set()
    stream = served.client().images.generate(prompt=APPLE, stream=True, partial_images=1, extra_body={"steps": 100})
    assert "partial_image" in next(stream).type
    brake.may_go.clear()
    waiting = aside(served.client().images.generate, prompt=APPLE, extra_body={"steps": 2})
    wait_for_waiting(served, 1)
    served.uvicorn.should_exit = True
    with pytest.raises(openai.InternalServerError, match="shutting down") as error:
        waiting.result()
    assert error.value.code == "shutting_down"
    with pytest.raises(openai.APIError, match="shutting down"):
        next(stream)
    brake.may_go.set()
    served.thread.join(20)
    gc.collect()
    assert all("graceful shutdown exceeded" in record.message for record in caplog.records)


def wait_for_waiting(served, num):
    """Until so many pictures wait for their turn."""
    wait_until(lambda: served.worker.num_waiting == num)


def wait_until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not so within {seconds} s"
        time.sleep(0.005)


# -- those who run it ---------------------------------------------------------------------------------------------


def test_only_those_with_a_key_draw_where_there_are_keys(serving, tmp_path):
    (tmp_path / "keys").write_text("# of two people\nfirst-key\n\nsecond-key\n")
    served = serving(digests=read_keys(tmp_path / "keys"))
    for key in ("first-key", "second-key"):
        assert served.client(key).images.generate(prompt=APPLE, extra_body={"steps": 1}).data
    for key in ("first-ke", "first-key2", "# of two people", "ä"):
        request = urllib.request.Request(f"{served.url}/v1/models", headers={"Authorization": f"Bearer {key}"})
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(request, timeout=20)
    with pytest.raises(openai.AuthenticationError) as error:
        served.client("wrong").images.generate(prompt=APPLE)
    assert error.value.code == "invalid_api_key"
    for path in ("healthz", "readyz", "metrics"):
        get(f"{served.url}/{path}")


def test_a_file_of_keys_may_begin_with_a_byte_order_mark(tmp_path):
    file = tmp_path / "keys"
    file.write_text("\ufeffa key\n")
    assert read_keys(file) == [hashlib.sha256(b"a key").digest()]


def test_a_file_without_keys_is_refused(tmp_path):
    (tmp_path / "keys").write_text("# none yet\n")
    with pytest.raises(ValueError, match="holds no key"):
        read_keys(tmp_path / "keys")


def test_health_and_readiness_and_metrics_are_told(served):
    served.client().images.generate(prompt="a secret dog", extra_body={"steps": 1})
    assert json.loads(get(f"{served.url}/healthz")[0]) == {"status": "ok"}
    assert json.loads(get(f"{served.url}/readyz")[0])["model"] == "tiny"
    told = metrics(served)
    assert told['muse_requests_total{route="/v1/images/generations",status="200"}'] >= 1
    assert told["muse_pictures_total"] >= 1
    assert told["muse_queue_pictures"] == 0
    assert "process_resident_memory_bytes" in told
    assert "secret" not in "".join(told)


def test_monitors_may_ask_for_heads(served):
    for path in ("/healthz", "/readyz", "/v1/models", "/metrics"):
        with urllib.request.urlopen(urllib.request.Request(served.url + path, method="HEAD"), timeout=30) as response:
            assert (response.status, response.read()) == (200, b"")
            assert int(response.headers["Content-Length"]) > 0
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(urllib.request.Request(served.url + "/v1/images/edits", method="HEAD"), timeout=30)
    assert error.value.code == 405


def test_a_path_that_nobody_knows_is_a_404_of_the_api_and_no_new_metric(served):
    for path in ("/v1/images/paint", "/wp-login.php", "/v1/images/generations"):
        with pytest.raises(urllib.error.HTTPError) as error:
            get(served.url + path)
        assert error.value.code in (404, 405)
        assert set(json.loads(error.value.read())["error"]) == {"message", "type", "param", "code"}
    assert not any("wp-login" in name for name in metrics(served))


@pytest.mark.parametrize("log_prompts", [False, True])
def test_the_log_is_json_and_knows_prompts_only_if_asked(log_prompts, serving, caplog):
    served = serving(log_prompts=log_prompts)
    with caplog.at_level(logging.INFO, "muse.server"):
        answer = served.client().images.generate(prompt="a\nsecret dog", n=2, extra_body={"steps": 1})
        wait_until(lambda: caplog.records)
    lines = [JsonLines().format(record) for record in caplog.records]
    assert not any("\n" in line for line in lines)
    (line,) = [json.loads(line) for line in lines if "generations" in line]
    assert line["status"] == 200
    assert line["pictures"] == 2
    assert line["request_id"] == answer._request_id
    assert ("secret" in "".join(lines)) == log_prompts


def test_the_openapi_document_describes_every_field(served):
    document = json.loads(get(f"{served.url}/openapi.json")[0])
    body = document["paths"]["/v1/images/generations"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert {"prompt", "n", "size", "seed", "steps", "guidance", "negative_prompt", "quality"} <= set(body["properties"])
    assert body["required"] == ["prompt"]


@pytest.mark.parametrize(
    "wrong", [{"port": 70_000}, {"max_queue": 0}, {"max_steps": 0}, {"body_seconds": float("nan")}, {"public_url": "x"}]
)
def test_options_that_do_not_go_are_refused_in_one_sentence(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Serve(**wrong)


def test_muse_serve_serves_and_ends_well_when_it_is_told_to_in_the_middle_of_a_picture(tiny_folder, aside):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "muse", "serve", "--model", tiny_folder, "--port", port, "--max-steps", 10_000]
    environment = {**os.environ, "PYTHONPATH": str(Path(muse.__file__).parents[1])}
    process = subprocess.Popen([*map(str, command)], env=environment, stderr=subprocess.PIPE, text=True)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: answers(f"{url}/readyz"), 60)
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        picture = aside(client.images.generate, prompt="a secret dog", extra_body={"steps": 300})
        wait_until(lambda: b"muse_queue" in get(f"{url}/metrics")[0] and not picture.done())
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        assert picture.result(60).data
        assert process.wait(20) in (0, -signal.SIGTERM)
    finally:
        process.kill()
        said = process.communicate()[1]
    lines = [json.loads(line) for line in said.splitlines()]
    assert {"request", "Application shutdown complete."} <= {line["message"] for line in lines}
    assert "secret" not in said


def answers(url):
    try:
        return bool(get(url))
    except OSError:
        return False


def test_under_a_prefix_keys_are_asked_for_too(tiny_muse):
    from starlette.testclient import TestClient

    from muse.apps.server.app import create_app

    digests = [hashlib.sha256(b"a key").digest()]
    with TestClient(create_app(tiny_muse, Serve(), digests), root_path="/muse") as client:
        assert client.get("/muse/v1/models").status_code == 401
        assert client.get("/muse/v1/models", headers={"Authorization": "Bearer a key"}).status_code == 200
        assert client.get("/muse/healthz").status_code == 200


def test_an_address_that_is_taken_or_not_ours_is_told_before_the_model_is_loaded(served, capsys):
    for arguments in (["--port", str(served.port)], ["--host", "192.0.2.1"]):
        for command in ("serve", "web"):
            assert main([command, "--model", "nosuch", *arguments]) == 2
            assert capsys.readouterr().err.startswith("muse: cannot listen on ")


def test_the_models_own_steps_are_no_more_than_the_server_takes(tiny_muse, cascade):
    few = Serve(max_steps=3)
    (wish,) = drawings(cascade, few, GenerationRequest.model_validate({"prompt": APPLE}))
    assert wish.superres_options is not None
    assert (wish.options.steps, wish.superres_options.steps) == (3, 3)
    assert EditRequest.model_validate({"prompt": APPLE}).options(EditOptions(), few).iterations == 3
