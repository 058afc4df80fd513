"""Waiting for pictures: all of them, or one with its previews as server-sent events; no longer than the client does."""

import asyncio
import base64
import json
import time
from collections.abc import Awaitable, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from PIL import Image
from starlette.requests import Request

from muse.apps.server.errors import ApiError
from muse.apps.worker import Drawn, Task

EVENTS = "text/event-stream"
Result = TypeVar("Result")
"""What is waited for."""


class ClientGone(Exception):
    """Nobody is there any longer to be answered."""


async def until_gone(request: Request) -> None:
    """Returns when the client closes the connection; its body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def unless_gone(request: Request, wanted: Awaitable[Result]) -> Result:
    """What is waited for.
    Raises ClientGone as soon as the client has gone."""
    waiting, gone = asyncio.ensure_future(wanted), asyncio.ensure_future(until_gone(request))
    # asyncio would complain of an error that nobody has looked at.
    waiting.add_done_callback(lambda each: each.cancelled() or each.exception())
    try:
        await asyncio.wait({waiting, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            raise ClientGone
        return waiting.result()
    finally:
        gone.cancel()
        waiting.cancel()


@contextmanager
def abandoned_at_the_end(tasks: Sequence[Task]):
    """However it ends, nobody waits for these tasks afterwards."""
    try:
        yield
    finally:
        for task in tasks:
            task.abandon()


async def all_drawn(request: Request, tasks: Sequence[Task]) -> list[Drawn]:
    """All pictures.
    Raises ApiError if one cannot be drawn, ClientGone if the client does not wait."""
    with abandoned_at_the_end(tasks):
        try:
            pictures = asyncio.gather(*(asyncio.wrap_future(task.future) for task in tasks))
            return await unless_gone(request, pictures)
        except ValueError as error:
            raise cannot_draw(error) from error


class Progress:
    """What happens to one task, in order: its previews, and then its picture or why there is none."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Image.Image | None] = asyncio.Queue()

    def on_preview(self, image: Image.Image | None) -> None:
        """Called by the worker's thread."""
        with suppress(RuntimeError):  # the loop may be closed by now
            self._loop.call_soon_threadsafe(self._events.put_nowait, image)

    async def next(self, request: Request, task: Task) -> Image.Image | Drawn:
        """The next preview, or the picture.
        Raises ApiError if it cannot be drawn, ClientGone if the client does not wait."""
        image = await unless_gone(request, self._events.get())
        if image is not None:
            return image
        try:
            return task.future.result(timeout=0)
        except ValueError as error:
            raise cannot_draw(error) from error


def cannot_draw(error: ValueError) -> ApiError:
    """What the model says of a request that it cannot fulfil."""
    message = str(error)
    return ApiError(400, message[:1].upper() + message[1:] + ".", code="invalid_value")


def event(name: str, fields: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return f"event: {name}\ndata: {json.dumps({'type': name, **fields})}\n\n".encode()


def error_event(error: ApiError) -> bytes:
    """What goes wrong after a stream has begun; clients find `error` in the data."""
    return f"event: error\ndata: {json.dumps({'type': 'error', **error.body()})}\n\n".encode()


def base64_of(content: bytes) -> str:
    return base64.b64encode(content).decode()


def now() -> int:
    """Unix time in whole seconds, as the API has it."""
    return int(time.time())
