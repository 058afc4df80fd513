"""docs/serving.md is so: its code runs against a server, and it names every option and every path."""

import dataclasses
import json
import re
import shlex
import urllib.request
from pathlib import Path

import pytest

from muse.apps.server.options import Serve

DOCUMENT = (Path(__file__).parents[3] / "docs/serving.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)
ADDRESS = "http://127.0.0.1:8000"


@pytest.mark.parametrize("code", [block for kind, block in BLOCKS if kind == "python"])
def test_the_python_of_the_document_runs(code, served, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(code.replace(ADDRESS, served.url), {})


@pytest.mark.parametrize("command", [block for kind, block in BLOCKS if kind == "sh" and "curl" in block])
def test_what_the_document_sends_with_curl_is_answered(command, served):
    _, address, _, header, _, body = shlex.split(command.replace("\\\n", ""))
    headers = dict([header.split(": ")])
    request = urllib.request.Request(address.replace(ADDRESS, served.url), body.encode(), headers)
    assert json.loads(urllib.request.urlopen(request, timeout=20).read())["data"][0]["url"]


def test_the_document_names_every_option_and_every_path(served):
    for field in dataclasses.fields(Serve):
        assert f"`--{field.name.replace('_', '-')}`" in DOCUMENT
    paths = json.loads(urllib.request.urlopen(f"{served.url}/openapi.json", timeout=20).read())["paths"]
    for path, verbs in paths.items():
        assert all(f"{verb.upper()} {path.replace('{model}', '{name}')}" in DOCUMENT for verb in verbs)
