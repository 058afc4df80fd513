"""What the server meets in the open: nothing of it is answered by a 5xx, and the next picture is drawn."""

import io
import json
import re
import socket
import struct
import time
import zlib
from collections.abc import Collection

import pytest
from PIL import Image

DRAW, EDIT, VARY = "/v1/images/generations", "/v1/images/edits", "/v1/images/variations"
WITHIN = 20.0


class Raw:
    """Bytes to a server and back, without a client that would put anything right."""

    def __init__(self, served):
        self.address = ("127.0.0.1", served.port)

    def send(self, *chunks):
        """The status and the JSON of the answer."""
        with socket.create_connection(self.address, timeout=WITHIN) as connection:
            for chunk in chunks:
                connection.sendall(chunk)
            return read_answer(connection)

    def post(self, path, body, kind="application/json"):
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        return self.send(head.encode() + b"Connection: close\r\n\r\n" + body)


def read_answer(connection):
    answer = b""
    while part := connection.recv(65536):
        answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body) if body.startswith(b"{") else body


def form(*parts, boundary="edge"):
    """A multipart body: each part a name, a content, and perhaps a file name."""
    lines = []
    for name, content, *file in parts:
        of_file = f'; filename="{file[0]}"' if file else ""
        lines.append(f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{of_file}\r\n\r\n'.encode())
        lines.append((content if isinstance(content, bytes) else content.encode()) + b"\r\n")
    return b"".join(lines) + f"--{boundary}--\r\n".encode()


FORM = "multipart/form-data; boundary=edge"


@pytest.fixture
def raw(served):
    """Something hostile is sent in the test; afterwards the server still draws."""
    yield Raw(served)
    assert served.client().images.generate(prompt="a red apple", extra_body={"steps": 1}).data


def is_refusal(status, answer, statuses: Collection[int] = range(400, 500)):
    """An error of the API's own shape that does not tell how the server is made."""
    assert status in statuses, answer
    assert set(answer["error"]) == {"message", "type", "param", "code"}
    assert len(json.dumps(answer)) < 1000
    assert not re.search(r"Traceback|site-packages|pydantic|starlette|\.py", json.dumps(answer))
    return True


def png(width=8, height=8, **more):
    file = io.BytesIO()
    Image.new("RGB", (width, height)).save(file, format="PNG", **more)
    return file.getvalue()


def chunk(kind, content):
    """A chunk of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def bomb(width, height):
    """A PNG of a few bytes that says that it is huge."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    packed = zlib.compress(bytes(1_000_000), 9)
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def text_bomb():
    """A small PNG whose comment unpacks to 100 MB."""
    whole = png()
    comment = b"Comment\x00\x00" + zlib.compress(bytes(100_000_000), 9)
    return whole[:33] + chunk(b"zTXt", comment) + whole[33:]


SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(/etc/passwd) run\n"
PICTURES = {
    "nothing": b"",
    "text": b"hello",
    "svg": SVG,
    "eps": EPS,
    "a bomb of 400 megapixels": bomb(20_000, 20_000),
    "a bomb of 4 gigapixels": bomb(65_500, 65_500),
    "a bomb within Pillow's limit": bomb(9_000, 9_000),
    "the largest size there is": bomb(2**31 - 1, 2**31 - 1),
    "no size": bomb(0, 0),
    "too large": png(2001, 2001),
    "cut": png(300, 300)[:60],
    "a bomb in a comment": text_bomb(),
    "gif": b"GIF89a" + bytes(20),
}


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("path", [EDIT, VARY])
def test_what_is_no_picture_or_too_large_a_one_is_refused(path, name, raw):
    fields = [("prompt", "a")] if path == EDIT else []
    status, answer = raw.post(path, form(*fields, ("image", PICTURES[name], "a.png")), FORM)
    assert is_refusal(status, answer, [400])
    assert answer["error"]["param"] == "image"


def test_a_mask_is_opened_with_the_same_care(raw):
    body = form(("prompt", "a"), ("image", png(), "a.png"), ("mask", bomb(20_000, 20_000), "b.png"))
    status, answer = raw.post(EDIT, body, FORM)
    assert is_refusal(status, answer, [400])
    assert answer["error"]["param"] == "mask"


GOOD = ("image", png(), "../../../etc/passwd\x00.png")
FORMS = {
    "no boundary": (form(GOOD), "multipart/form-data"),
    "another boundary": (form(GOOD, boundary="other"), FORM),
    "an empty body": (b"", FORM),
    "no end": (form(("prompt", "a"), GOOD)[:-20], FORM),
    "text for a picture": (form(("prompt", "a"), ("image", "hello")), FORM),
    "a file for text": (form(("prompt", "a", "a.txt"), GOOD), FORM),
    "a field twice": (form(("prompt", "a"), ("prompt", "b"), GOOD), FORM),
    "two pictures": (form(("prompt", "a"), ("image[]", png(), "a"), ("image[]", png(), "b")), FORM),
    "a thousand fields": (form(*[(f"f{i}", "a") for i in range(1000)], GOOD), FORM),
    "a hundred files": (form(*[(f"f{i}", b"a", "a") for i in range(100)], GOOD), FORM),
    "a field of 2 MB": (form(("prompt", "a" * 2_000_000), GOOD), FORM),
    "a name of 100,000 letters": (form(("x" * 100_000, "a"), GOOD), FORM),
    "no UTF-8": (form(("prompt", b"\xff\xfe apple"), GOOD), FORM),
    "no UTF-8 in a name": (form(("prompt", "a"), GOOD).replace(b'"prompt"', b'"\xff\xfe"'), FORM),
    "another charset": (form(("prompt", b"\xff\xfe apple"), GOOD), FORM + "; charset=utf-16"),
    "no name": (form(("prompt", "a"), GOOD).replace(b'name="prompt"', b""), FORM),
    "json": (b'{"prompt": "a"}', "application/json"),
    "no type": (form(GOOD), ""),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_form_that_is_none_is_refused(name, raw):
    assert is_refusal(*raw.post(EDIT, *FORMS[name]), statuses=[400, 413, 415])


def test_the_name_of_a_file_is_never_used(raw, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    body = form(("prompt", "a"), ("iterations", "1"), ("image", png(), "../../evil.png"))
    assert raw.post(EDIT, body, FORM)[0] == 200
    assert not list(tmp_path.parent.glob("evil*"))


BODIES = {
    "nothing": b"",
    "no JSON": b"prompt=a",
    "no object": b'["a"]',
    "no UTF-8": b'{"prompt": "\xff\xfe"}',
    "half a letter": b'{"prompt": "\\ud800"}',
    "too deep": b'{"prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "too many digits": b'{"prompt": "a", "seed": ' + b"9" * 10_000 + b"}",
    "too large a number": b'{"prompt": "a", "guidance": 1e999}',
    "2 MB": b'{"prompt": "' + b"a" * 2_000_000 + b'"}',
    "100,000 letters": json.dumps({"prompt": "a " * 50_000}).encode(),
    "100,000 letters to avoid": json.dumps({"prompt": "a", "negative_prompt": "a " * 50_000}).encode(),
    "32,000 letters": json.dumps({"prompt": "a " * 16_000}).encode(),
    "32,001 emoji": json.dumps({"prompt": "🦊" * 32_001}).encode(),
    "a zero byte only": json.dumps({"prompt": "\u2003\n"}).encode(),
    "a list of prompts": json.dumps({"prompt": ["a", "b"]}).encode(),
    "a path for a model": json.dumps({"prompt": "a", "model": "../../etc/passwd"}).encode(),
    "another path for a model": json.dumps({"prompt": "a", "model": "/tmp"}).encode(),
    "a model of the hub": json.dumps({"prompt": "a", "model": "somebody/something"}).encode(),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_body_that_cannot_be_drawn_is_refused(name, raw):
    assert is_refusal(*raw.post(DRAW, BODIES[name]), statuses=[400, 404, 413])


NUMBERS = [  # only top_k may be as large as one likes
    "NaN",
    "Infinity",
    "-Infinity",
    "1e308",
    "-1",
    "-0.5",
    "1e30",
    str(2**64),
    str(-(2**63)),
    '"5"',
    "true",
    "[1]",
]
FIELDS = [
    "n",
    "output_compression",
    "seed",
    "steps",
    "guidance",
    "temperature",
    "top_k",
    "choice_noise",
    "remask",
    "refresh",
    "superres_steps",
    "partial_images",
]


@pytest.mark.parametrize("field", FIELDS)
def test_numbers_that_are_none_or_too_large_never_break_the_server(field, served):
    raw = Raw(served)
    for number in NUMBERS:
        status, answer = raw.post(DRAW, f'{{"prompt": "a", "stream": false, "{field}": {number}}}'.encode())
        assert (status, field) == (200, "top_k") or is_refusal(status, answer, [400])


@pytest.mark.parametrize("field", [*FIELDS, "strength", "left", "share", "context", "iterations", "most_changed"])
def test_numbers_of_forms_neither(field, served):
    raw = Raw(served)
    path, few = (VARY, ("steps", "1")) if field == "strength" else (EDIT, ("iterations", "1"))
    fields = [few] if path == VARY else [few, ("prompt", "a")]
    for number in ("nan", "-inf", "-1", "1e308", "1" * 400, "１２", "", "0x10", "one"):
        parts = [part for part in fields if part[0] != field]
        status, answer = raw.post(path, form(*parts, (field, number), ("image", png(), "a.png")), FORM)
        assert (status, field) == (200, "top_k") or is_refusal(status, answer, [400])


def test_a_body_of_100_mb_is_refused_whether_it_says_so_or_not(raw):
    part = b"x" * 1_000_000
    head = f"POST {EDIT} HTTP/1.1\r\nHost: x\r\nContent-Type: {FORM}\r\nConnection: close\r\n"
    declared = f"{head}Content-Length: {100 * len(part)}\r\n\r\n".encode()
    assert is_refusal(*raw.send(declared, *[part] * 100), statuses=[413])
    first = form(("image", b"x", "a.png"))[:-13]
    chunks = [f"{len(each):x}\r\n".encode() + each + b"\r\n" for each in [first, *[part] * 100]]
    assert is_refusal(
        *raw.send(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode(), *chunks, b"0\r\n\r\n"), statuses=[413]
    )
    asking = f"{head}Content-Length: {100 * len(part)}\r\nExpect: 100-continue\r\n\r\n".encode()
    assert is_refusal(*raw.send(asking), statuses=[413])  # told before it sends anything


def test_a_body_that_comes_drop_by_drop_is_not_waited_for(serving):
    served = serving(body_seconds=0.3)
    raw = Raw(served)
    head = f"POST {DRAW} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
    started = time.monotonic()
    assert is_refusal(*raw.send(head.encode(), b'{"prompt'), statuses=[408])
    assert time.monotonic() - started < 5
    assert served.client().images.generate(prompt="a", extra_body={"steps": 1}).data


@pytest.mark.parametrize(
    "line",
    [
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1",
        b"GET /\xff\xfe HTTP/1.1",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"POST /v1/images/generations HTTP/1.1\r\nContent-Length: -5",
        b"POST /v1/images/generations HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked",
        b"GET /pictures/..%2f..%2fetc%2fpasswd HTTP/1.1",
        b"GET /v1/models/..%2f..%2fetc HTTP/1.1",
        b"TRACE /v1/models HTTP/1.1",
    ],
)
def test_what_is_hardly_http_is_refused(line, raw):
    status, _ = raw.send(line + b"\r\nHost: x\r\nConnection: close\r\n\r\n0\r\n\r\n")
    assert 400 <= status < 500


def test_a_client_that_leaves_in_the_middle_of_its_body_is_forgotten(raw, served):
    head = f"POST {EDIT} HTTP/1.1\r\nHost: x\r\nContent-Type: {FORM}\r\nContent-Length: 1000\r\n\r\n"
    for _ in range(3):
        connection = socket.create_connection(raw.address, timeout=WITHIN)
        connection.sendall(head.encode() + form(("prompt", "a"))[:20])
        connection.close()
    assert served.worker.num_waiting == 0
