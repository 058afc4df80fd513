"""The application: the routes of the OpenAI Images API, and those for the people who run it.
Source: the API's public reference, "Images" and "Models"."""

import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
from fastapi import FastAPI, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, StreamingResponse

from muse import __version__
from muse.apps.server import streams, wire
from muse.apps.server.drawing import Drawing, draw
from muse.apps.server.errors import ApiError, bad_value, closing, failed, queue_full
from muse.apps.server.gate import Gate
from muse.apps.server.metrics import Metrics
from muse.apps.server.options import Serve
from muse.apps.server.pictures import PictureStore, encode
from muse.apps.server.worker import Closed, Drawn, QueueFull, Task, Wish, Worker
from muse.apps.settings import Settings
from muse.pipeline import Muse, random_seeds

log = logging.getLogger("muse.server")

LARGEST_JSON = 1_000_000
"""Bytes of a JSON body; the longest prompts fit."""
PICTURES = "/pictures/"


class ImageServer:
    """A model, its worker, and what the routes share."""

    def __init__(self, muse: Muse, serve: Serve):
        self.muse, self.serve, self.started = muse, serve, int(time.time())
        self.metrics = Metrics(lambda: self.worker.num_waiting)
        self.worker = Worker(partial(draw, muse), serve.max_queue, serve.max_batch, self.metrics.on_batch)
        self.store = PictureStore(serve.url_mb * 1e6, serve.url_seconds)

    # -- asking ---------------------------------------------------------------------------------------------------

    def check_model(self, asked: wire.ImageRequest) -> None:
        """Raises ApiError if another model is asked for."""
        if asked.model not in (None, self.muse.name):
            message = f"There is no model of that name here; leave it out, or ask for '{self.muse.name}'."
            raise ApiError(404, message, param="model", code="model_not_found")

    def check_size(self, asked: wire.ImageRequest, offered: Sequence[tuple[int, int]]) -> None:
        """Raises ApiError if a size is asked for that is not offered."""
        sizes = [size_name(size) for size in offered]
        if asked.size not in (None, "auto", *sizes):
            raise bad_value("size", f"this model draws {', '.join(sizes)}; ask for that, or for 'auto'")

    async def drawings(self, request: Request) -> tuple[wire.PromptRequest, list[Drawing]]:
        """What `generations` asks for.
        Raises ApiError for what cannot be."""
        asked = wire.from_json(wire.GenerationRequest, await read_json_body(request))
        asked.check(self.serve)
        self.check_model(asked)
        self.check_size(asked, [self.muse.size])
        options = asked.sampling(self.muse.defaults)
        return asked, [Drawing(asked.prompt, seed, asked.negative_prompt, options) for seed in seeds_of(asked)]

    def line_up(self, tasks: Sequence[Task]) -> None:
        """Raises ApiError if the queue is full or the server stops."""
        try:
            self.worker.submit(tasks)
        except QueueFull as error:
            raise queue_full(error.seconds) from error
        except Closed as error:
            raise closing() from error

    # -- answering ------------------------------------------------------------------------------------------------

    async def answer(
        self, request: Request, asked: wire.ImageRequest, wishes: Sequence[Wish], texts: Sequence[dict[str, str]]
    ) -> Response:
        """Pictures of wishes, all at once; `texts` are what a PNG says of each."""
        tasks = [Task(wish) for wish in wishes]
        self.line_up(tasks)
        pictures = await streams.all_drawn(request, tasks)
        data = []
        for drawn, text in zip(pictures, texts, strict=True):
            content = await run_in_threadpool(encode, drawn.image, asked.format, asked.quality, text)
            if asked.response_format == "url":
                shown = {"url": self.address(request, self.store.put(content, asked.format))}
            else:
                shown = {"b64_json": streams.base64_of(content)}
            data.append(shown | {"seed": int(text["seed"])})
        size = size_name(pictures[0].image.size)
        fields = {"background": "opaque", "output_format": asked.format, "size": size, "usage": usage_of(pictures)}
        return JSONResponse({"created": streams.now(), "data": data, **fields})

    async def stream(
        self, request: Request, asked: wire.PromptRequest, wish: Wish, text: dict[str, str], kind: str
    ) -> Response:
        """One picture, after previews if they are asked for, as server-sent events.
        Raises ApiError for what goes wrong before the first of them."""
        progress = streams.Progress()
        task = Task(wish, asked.partial_images or 0, progress.on_preview)
        task.future.add_done_callback(lambda _: progress.on_preview(None))
        self.line_up([task])
        events = self.events(request, asked, progress, task, text, kind)
        first = await anext(events)

        async def all_events() -> AsyncIterator[bytes]:
            yield first
            try:
                async for each in events:
                    yield each
            except ApiError as error:
                yield streams.error_event(error)
            except streams.ClientGone:
                return
            except Exception:
                log.exception("a stream failed")
                yield streams.error_event(failed())

        return StreamingResponse(all_events(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})

    async def events(
        self,
        request: Request,
        asked: wire.PromptRequest,
        progress: streams.Progress,
        task: Task,
        text: dict[str, str],
        kind: str,
    ) -> AsyncIterator[bytes]:
        """The events of one picture."""
        index = 0
        with streams.abandoned_at_the_end([task]):
            while True:
                shown = await progress.next(request, task)
                image = shown.image if isinstance(shown, Drawn) else shown
                content = await run_in_threadpool(encode, image, asked.format, asked.quality, text)
                fields = {
                    "b64_json": streams.base64_of(content),
                    "created_at": streams.now(),
                    "size": size_name(image.size),
                    "quality": "auto",
                    "background": "opaque",
                    "output_format": asked.format,
                }
                if isinstance(shown, Drawn):
                    more = {"usage": usage_of([shown]), "seed": int(text["seed"])}
                    yield streams.event(f"{kind}.completed", fields | more)
                    return
                yield streams.event(f"{kind}.partial_image", fields | {"partial_image_index": index})
                index += 1

    def address(self, request: Request, name: str) -> str:
        """Where a stored picture can be had."""
        base = self.serve.public_url or str(request.base_url)
        return base.rstrip("/") + PICTURES + name

    def note(self, request: Request, asked: wire.ImageRequest, wishes: Sequence[Wish]) -> None:
        """What the log may know of a request."""
        notes = request.scope["muse.notes"]
        notes["pictures"] = len(wishes)
        if self.serve.log_prompts and isinstance(asked, wire.PromptRequest):
            notes["prompt"] = asked.prompt

    def model_card(self) -> dict[str, Any]:
        """The model as the API lists it; what it draws stands beside."""
        card = {"id": self.muse.name, "object": "model", "created": self.started, "owned_by": "muse"}
        return card | {"sizes": [size_name(self.muse.size)], "defaults": vars(self.muse.defaults)}


def create_app(muse: Muse, serve: Serve, digests: Sequence[bytes] = ()) -> FastAPI:
    """The application that serves a model; `digests` of the bearer keys that it asks for."""
    server = ImageServer(muse, serve)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await anyio.to_thread.run_sync(server.worker.close, serve.shutdown_seconds)

    app = FastAPI(title="Muse", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.server = server
    add_image_routes(app, server)
    add_house_routes(app, server)
    add_error_handlers(app)
    app.add_middleware(
        Gate,
        metrics=server.metrics,
        digests=digests,
        max_bytes=serve.max_body_mb * 1e6,
        body_seconds=serve.body_seconds,
    )
    return app


def add_image_routes(app: FastAPI, server: ImageServer) -> None:
    """The OpenAI Images API."""

    @app.post("/v1/images/generations", openapi_extra=wire.schema_of(wire.GenerationRequest, {}))
    async def generations(request: Request) -> Response:
        """Draw pictures of a prompt."""
        asked, drawings = await server.drawings(request)
        server.note(request, asked, drawings)
        texts = [text_of(drawing, server.muse.name) for drawing in drawings]
        if asked.stream:
            return await server.stream(request, asked, drawings[0], texts[0], "image_generation")
        return await server.answer(request, asked, drawings, texts)

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        """The one model that is served."""
        return {"object": "list", "data": [server.model_card()]}

    @app.get("/v1/models/{model:path}")
    async def model(model: str) -> dict[str, Any]:
        """The model, by its name."""
        server.check_model(wire.ImageRequest.model_construct(model=model))
        return server.model_card()


def add_house_routes(app: FastAPI, server: ImageServer) -> None:
    """For the people who run it, and the pictures that are handed out by address."""

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """The process answers."""
        return {"status": "ok"}

    @app.get("/readyz")
    async def readyz() -> dict[str, Any]:
        """Pictures can be asked for."""
        if not server.worker.is_ready:
            raise closing()
        return {"status": "ready", "model": server.muse.name, "waiting": server.worker.num_waiting}

    @app.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """For Prometheus."""
        return Response(server.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get(PICTURES + "{name}", response_class=Response)
    async def picture(name: str) -> Response:
        """A picture that was asked for by address."""
        found = server.store.get(name)
        if found is None:
            raise ApiError(404, "There is no such picture, or not any longer.", code="not_found")
        headers = {"Cache-Control": "private, max-age=3600", "X-Content-Type-Options": "nosniff"}
        return Response(found.content, media_type=found.media_type, headers=headers)


def add_error_handlers(app: FastAPI) -> None:
    """Every error is answered in the API's own shape."""

    async def on_api_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, ApiError)
        return error.response()

    async def on_http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code)
        return ApiError(error.status_code, f"{error.detail}.", code=code, headers=dict(error.headers or {})).response()

    async def on_client_gone(request: Request, error: Exception) -> Response:
        return Response(status_code=499)  # nobody reads it; the log does

    app.add_exception_handler(ApiError, on_api_error)
    app.add_exception_handler(HTTPException, on_http_error)
    app.add_exception_handler(streams.ClientGone, on_client_gone)


async def read_json_body(request: Request) -> bytes:
    """The body of a request.
    Raises ApiError if it is too large for JSON, ClientGone if the client goes away before its end."""
    body, is_too_large = bytearray(), False
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise streams.ClientGone
        is_too_large = is_too_large or len(body) + len(message.get("body", b"")) > LARGEST_JSON
        body += b"" if is_too_large else message.get("body", b"")
        if not message.get("more_body", False):
            break
    if is_too_large:
        raise ApiError(413, "The request is larger than the 1 MB that JSON may have.", code="request_too_large")
    return bytes(body)


def seeds_of(asked: wire.ImageRequest) -> list[int]:
    """Seeds counting up from the one that is given, or random ones."""
    return random_seeds(asked.num) if asked.seed is None else [asked.seed + i for i in range(asked.num)]


def text_of(drawing: Drawing, model: str) -> dict[str, str]:
    """What a PNG says of a drawing."""
    return Settings(drawing.prompt, drawing.seed, drawing.options, drawing.negative, model).to_text()


def size_name(size: tuple[int, int]) -> str:
    """Width and height as the API writes them."""
    return f"{size[0]}x{size[1]}"


def usage_of(pictures: Sequence[Drawn]) -> dict[str, Any]:
    """What pictures took: the words of the prompt, which is read once, and the tokens of each picture."""
    words, tokens = pictures[0].num_words, sum(drawn.num_tokens for drawn in pictures)
    details = {"text_tokens": words, "image_tokens": 0}
    return {
        "input_tokens": words,
        "input_tokens_details": details,
        "output_tokens": tokens,
        "total_tokens": words + tokens,
    }
