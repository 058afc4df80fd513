"""Bodies of requests: JSON, and forms with pictures."""

from dataclasses import dataclass

import anyio
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from muse.apps.server.asking import Uploads
from muse.apps.server.errors import ApiError, bad_value
from muse.apps.server.pictures import open_picture
from muse.apps.server.streams import ClientGone

LARGEST_JSON = 1_000_000
"""Bytes of a JSON body; the longest prompts fit."""
MOST_FIELDS, MOST_FILES = 64, 16
FILES = ("image", "mask")


@dataclass(frozen=True)
class Form:
    """The fields of a form, and its files by name."""

    fields: dict[str, str]
    files: dict[str, UploadFile]


async def read_json_body(request: Request) -> bytes:
    """The body of a request.
    Raises ApiError if it is no JSON by its type or too large, ClientGone if the client goes away before its end."""
    check_type(request, "application/json")
    body, is_too_large = bytearray(), False
    try:
        async for chunk in request.stream():
            is_too_large = is_too_large or len(body) + len(chunk) > LARGEST_JSON
            body += b"" if is_too_large else chunk
    except ClientDisconnect as error:
        raise ClientGone from error
    if is_too_large:
        raise ApiError(413, "The request is larger than the 1 MB that JSON may have.", code="request_too_large")
    return bytes(body)


async def read_form(request: Request) -> Form:
    """The form of a request, large files of it on the disk.
    Raises ApiError if it is none, or not text in UTF-8; ClientGone if the client goes away before its end."""
    check_type(request, "multipart/form-data")
    # Read as Latin-1, which keeps every byte, and decoded below: the parser would guess where it is no UTF-8.
    kind = request.headers["content-type"].split(";")
    plain = ";".join(part for part in kind if not part.strip().lower().startswith("charset="))
    headers = Headers({"content-type": f"{plain}; charset=latin-1"})
    parser = MultiPartParser(headers, request.stream(), max_files=MOST_FILES, max_fields=MOST_FIELDS)
    try:
        items = (await parser.parse()).multi_items()
    except MultiPartException as error:
        raise ApiError(400, f"The form cannot be read: {error.message}", code="invalid_form") from error
    except ClientDisconnect as error:
        raise ClientGone from error
    fields: dict[str, str] = {}
    files: dict[str, UploadFile] = {}
    for raw_name, value in items:
        name = as_utf8(raw_name, "name").removesuffix("[]")
        if name in fields or name in files:
            raise bad_value(name[:100], "it came more than once, and one is taken")
        if isinstance(value, UploadFile):
            files[name] = value
        else:
            fields[name] = as_utf8(value, name)
    return Form(fields, files)


def as_utf8(text: str, name: str) -> str:
    """Bytes read as Latin-1, as what they are.
    Raises ApiError if they are no UTF-8."""
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeError as error:
        raise bad_value(name[:100], "it is not text in UTF-8") from error


async def open_uploads(form: Form, max_pixels: float, limiter: anyio.CapacityLimiter) -> Uploads:
    """The pictures of a form, unpacked beside the event loop and only a few at a time.
    Raises ApiError if one is missing, unknown or cannot be read."""
    for name in form.files:
        if name not in FILES:
            raise ApiError(400, f"Unknown parameter: {name[:100]!r}.", param=name[:100], code="unknown_parameter")
    for name in FILES:
        if name in form.fields:
            raise bad_value(name, "it is text; send it as a file")
    if "image" not in form.files:
        raise ApiError(400, "Missing required parameter: 'image'.", param="image", code="missing_required_parameter")
    pictures = {
        name: await anyio.to_thread.run_sync(open_picture, upload.file, name, max_pixels, limiter=limiter)
        for name, upload in form.files.items()
    }
    return Uploads(pictures["image"], pictures.get("mask"))


async def close(form: Form) -> None:
    """Let go of the files."""
    for upload in form.files.values():
        await upload.close()


def check_type(request: Request, wanted: str) -> None:
    """Raises ApiError if a body is of another type: a page of another site cannot send JSON without being asked."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != wanted:
        raise ApiError(415, f"The Content-Type is not {wanted}.", code="unsupported_media_type")
