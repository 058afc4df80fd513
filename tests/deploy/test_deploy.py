"""What `deploy/` holds: replicas on Ray Serve answer as one server, and the Dockerfile and the manifest are sound."""

import base64
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import tyro
import yaml
from openai import OpenAI

from muse.apps.server.options import Serve

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
HADOLINT = str(Path(sys.executable).parent / "hadolint")
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
MANIFEST = list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()))


def of_kind(kind):
    (found,) = [each for each in MANIFEST if each["kind"] == kind]
    return found


# -- Ray Serve ----------------------------------------------------------------------------------------------------

REPLICAS = pytest.mark.xdist_group("replicas")  # one worker starts them, once, and counts its own


@pytest.fixture(scope="module")
def address(tiny_folder):
    """Where two replicas of a tiny model answer."""
    import ray
    from ray import serve

    from deploy.ray_serve import Replicas, deployment

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "src")])
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=100_000_000)
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(deployment(Replicas(str(tiny_folder), min_replicas=2, max_replicas=2, cpus=0.1)))
    yield f"http://127.0.0.1:{port}"
    serve.shutdown()
    ray.shutdown()


def replicas() -> list[int]:
    """The processes of the replicas."""
    told = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
    return [int(line.split()[0]) for line in told.splitlines() if "ray::ServeReplica:" in line and "muse" in line]


def draw(address, seed=3):
    client = OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=5)
    answer = client.images.generate(prompt="a red apple", extra_body={"seed": seed, "steps": 2})
    assert answer.data
    return base64.b64decode(answer.data[0].b64_json or "")


@REPLICAS
def test_two_replicas_answer_the_official_client_as_one_and_survive_the_death_of_either(address):
    before = replicas()
    assert len(before) == 2
    with ThreadPoolExecutor(8) as clients:
        pictures = list(clients.map(lambda _: draw(address), range(16)))
    assert len(set(pictures)) == 1
    assert draw(address, seed=4) not in pictures
    os.kill(before[0], signal.SIGKILL)
    assert draw(address) == pictures[0]


@REPLICAS
def test_replicas_send_no_pictures_by_address(address):
    from openai import BadRequestError

    client = OpenAI(base_url=f"{address}/v1", api_key="none")
    with pytest.raises(BadRequestError, match="b64_json only"):
        client.images.generate(prompt="a red apple", response_format="url")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"modle": "emoji"}, "'modle' is no option; give NAME=VALUE of model"),
        ({"min_replicas": "3", "max_replicas": "2"}, "3 to 2 replicas"),
        ({"cpus": "-1"}, "cpus and gpus not below 0"),
        ({"max_replicas": "many"}, "max_replicas is 'many'; give a whole number"),
    ],
)
def test_options_that_cannot_be_are_refused_before_anything_starts(arguments, message):
    from deploy.ray_serve import Replicas

    with pytest.raises(ValueError, match=message):
        Replicas.from_arguments(arguments)


# -- Docker and Kubernetes ----------------------------------------------------------------------------------------


def test_the_dockerfile_passes_its_linter():
    done = subprocess.run([HADOLINT, str(DEPLOY / "Dockerfile")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dockerfile_copies_what_is_there_and_starts_muse_with_options_that_are():
    copied = [name for line in re.findall(r"^COPY (.*) \S+$", DOCKERFILE, re.MULTILINE) for name in line.split()]
    assert "src" in copied
    assert all((ROOT / name).exists() for name in copied)
    (entry,) = re.findall(r"^ENTRYPOINT \[(.*)\]$", DOCKERFILE, re.MULTILINE)
    words = shlex.split(entry.replace(",", " "))
    assert words[:2] == ["muse", "serve"]
    assert tyro.cli(Serve, args=words[2:]).host == "0.0.0.0"


def test_the_manifest_fits_the_schemas_of_kubernetes():
    import kubernetes_validate

    for each in MANIFEST:
        kubernetes_validate.validate(each, kubernetes_validate.latest_version(), strict=True)


def test_the_manifest_starts_the_server_of_the_image_and_waits_for_what_has_begun():
    pod = of_kind("Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    options = tyro.cli(Serve, args=container["args"])
    assert not options.urls
    command, seconds = container["lifecycle"]["preStop"]["exec"]["command"]
    assert command == "sleep"
    assert pod["terminationGracePeriodSeconds"] > options.shutdown_seconds + int(seconds) > options.shutdown_seconds
    assert options.keys_file == Path("/keys/keys")
    (port,) = [each["containerPort"] for each in container["ports"]]
    assert f"EXPOSE {port}" in DOCKERFILE
    assert {container[probe]["httpGet"]["path"] for probe in ("readinessProbe", "livenessProbe")} == {
        "/readyz",
        "/healthz",
    }


def test_the_parts_of_the_manifest_belong_together():
    deployment, service, scaler = map(of_kind, ("Deployment", "Service", "HorizontalPodAutoscaler"))
    assert service["spec"]["selector"].items() <= deployment["spec"]["template"]["metadata"]["labels"].items()
    assert scaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert "replicas" not in deployment["spec"], "each time it is applied it would undo what the autoscaler has set"
