"""What every request passes: a key, a bound on its size and on its time, a line in the log and a count.

Plain ASGI, because the server must see at once when a client goes away."""

import asyncio
import hashlib
import hmac
import logging
import secrets
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from muse.apps.server.errors import ApiError, closing, failed
from muse.apps.server.logs import FIELDS
from muse.apps.server.metrics import Metrics
from muse.apps.server.streams import EVENTS, error_event

log = logging.getLogger("muse.server")

PROTECTED = "/v1/"
MOST_DISCARDED = 256 * 1024 * 1024
"""A body that is refused is read to its end, up to here, and thrown away: most clients read no answer before."""
DISCARD_SECONDS = 5.0


def read_keys(path: Path) -> list[bytes]:
    """Digests of the bearer keys of a file, one a line.
    Raises OSError if it cannot be read, ValueError if it holds none."""
    keys = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    digests = [hashlib.sha256(key.encode()).digest() for key in keys if key and not key.startswith("#")]
    if not digests:
        raise ValueError(f"{path} holds no key; write one a line")
    return digests


def is_known(key: bytes, digests: Sequence[bytes]) -> bool:
    """Whether a key is one of those, in a time that does not tell how nearly."""
    digest = hashlib.sha256(key).digest()
    matches = [hmac.compare_digest(digest, known) for known in digests]  # all of them, whichever it is
    return any(matches)


class Gate:
    """ASGI middleware; `digests` of the keys that open it, or none if it is open to all."""

    def __init__(
        self, app: ASGIApp, *, metrics: Metrics, digests: Sequence[bytes], max_bytes: float, body_seconds: float
    ):
        self.app, self.metrics, self.digests = app, metrics, digests
        self.max_bytes, self.body_seconds = max_bytes, body_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        method = scope["method"]
        if method == "HEAD":
            scope = {**scope, "method": "GET"}  # the same answer; the server that sends it leaves out its body
        started, request_id, status, is_stream = time.monotonic(), secrets.token_hex(8), 0, False
        notes: dict[str, Any] = {}
        scope["muse.notes"] = notes

        async def noted_send(message: Message) -> None:
            nonlocal status, is_stream
            if message["type"] == "http.response.start":
                await body.finish()
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
                is_stream = dict(message["headers"]).get(b"content-type", b"").startswith(EVENTS.encode())
            await send(message)

        body = BoundedBody(scope, receive, self.max_bytes, self.body_seconds)
        try:
            if is_protected(scope) and self.digests and not is_known(bearer_key(scope), self.digests):
                await no_key().response()(scope, receive, noted_send)
            else:
                await self.app(scope, body.receive, noted_send)
        except asyncio.CancelledError:  # the server does not wait for it any longer
            if status == 0:
                await closing().response()(scope, receive, noted_send)
            elif is_stream:
                await send({"type": "http.response.body", "body": error_event(closing()), "more_body": False})
        except Exception:
            log.exception("a request failed", extra={FIELDS: {"request_id": request_id}})
            if status == 0:
                await failed().response()(scope, receive, noted_send)
        finally:
            seconds = time.monotonic() - started
            # No response at all: the client went away.
            status = status or 499
            self.metrics.on_request(route_of(scope), status, seconds)
            fields = {"request_id": request_id, "method": method, "path": scope["path"][:200]}
            log.info("request", extra={FIELDS: {**fields, "status": status, "seconds": round(seconds, 4), **notes}})


def is_protected(scope: Scope) -> bool:
    """Whether a path wants a key; where the server answers under a prefix, the path begins with that."""
    return scope["path"].removeprefix(scope.get("root_path", "")).startswith(PROTECTED)


class BoundedBody:
    """Receives a body of bounded size in bounded time.
    Raises ApiError from `receive` where it is too large or too slow."""

    def __init__(self, scope: Scope, receive: Receive, max_bytes: float, seconds: float):
        self._receive, self.max_bytes = receive, max_bytes
        self.deadline = time.monotonic() + seconds
        self.num_bytes, self.is_whole = 0, False
        headers = dict(scope["headers"])
        self.declared = parse_length(headers.get(b"content-length", b"0"))
        self.waits_for_leave = headers.get(b"expect", b"").lower() == b"100-continue"

    async def receive(self) -> Message:
        """The next message; once the body is whole, waits for the client to go away without any bound."""
        if self.is_whole:
            return await self._receive()
        if self.declared > self.max_bytes:
            raise self.too_large()
        message = await self._next(self.deadline)
        if self.num_bytes > self.max_bytes:
            raise self.too_large()
        return message

    async def finish(self) -> None:
        """Throw away what nobody has read, or the connection would be cut before the client has read its answer."""
        if self.waits_for_leave and self.num_bytes == 0:
            return
        deadline = min(self.deadline, time.monotonic() + DISCARD_SECONDS)
        with suppress(ApiError):
            while not self.is_whole and self.num_bytes <= MOST_DISCARDED:
                await self._next(deadline)

    async def _next(self, deadline: float) -> Message:
        try:
            message = await asyncio.wait_for(self._receive(), max(0.0, deadline - time.monotonic()))
        except TimeoutError as error:
            raise ApiError(
                408,
                "The request did not arrive in time; send it faster.",
                code="request_timeout",
                headers={"Connection": "close"},
            ) from error
        self.num_bytes += len(message.get("body", b""))
        self.is_whole = message["type"] == "http.disconnect" or not message.get("more_body", False)
        return message

    def too_large(self) -> ApiError:
        limit = f"{self.max_bytes / 1e6:g} MB"
        return ApiError(
            413,
            f"The request is larger than the {limit} that this server takes.",
            code="request_too_large",
            headers={"Connection": "close"},
        )


def parse_length(value: bytes) -> int:
    """A Content-Length; the server below has checked it."""
    return int(value) if value.isdigit() else 0


def bearer_key(scope: Scope) -> bytes:
    """The key of the Authorization header, empty if there is none."""
    value = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
    kind, _, key = value.partition(b" ")
    return key.strip() if kind.lower() == b"bearer" else b""


def no_key() -> ApiError:
    return ApiError(
        401,
        "No valid key came; send one as 'Authorization: Bearer KEY'.",
        code="invalid_api_key",
        headers={"WWW-Authenticate": "Bearer"},
    )


def route_of(scope: Scope) -> str:
    """The pattern of the path, and not the path, of which there are endlessly many."""
    return getattr(scope.get("route"), "path", "other")
