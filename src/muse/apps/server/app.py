"""The application: the routes of the OpenAI Images API, and those for the people who run it.
Source: the API's public reference, "Images" and "Models"."""

import dataclasses
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
from muse.apps.server.asking import Uploads, check_model, drawings, edits, offered_sizes, size_name, variations
from muse.apps.server.errors import ApiError, bad_value, closing, failed, queue_full
from muse.apps.server.forms import FILES, close, open_uploads, read_form, read_json_body
from muse.apps.server.gate import Gate
from muse.apps.server.metrics import Metrics
from muse.apps.server.options import Serve
from muse.apps.server.pictures import PictureStore, encode
from muse.apps.wishes import Alteration, Drawing, draw
from muse.apps.worker import Closed, Drawn, QueueFull, Task, Worker
from muse.pipeline import Muse

log = logging.getLogger("muse.server")

PICTURES = "/pictures/"
MOST_OPENERS = 2
"""Uploads that are unpacked at the same time; each takes as much memory as it has pixels."""
Wishes = Sequence[Drawing] | Sequence[Alteration]


class ImageServer:
    """A model, its worker, and what the routes share."""

    def __init__(self, muse: Muse, serve: Serve):
        self.muse, self.serve, self.started = muse, serve, int(time.time())
        self.metrics = Metrics(lambda: self.worker.num_waiting)
        batch = serve.batch(on_gpu=muse.device.type != "cpu")
        self.worker = Worker(partial(draw, muse), serve.max_queue, batch, self.metrics.on_batch)
        self.openers = anyio.CapacityLimiter(MOST_OPENERS)
        self.readers = anyio.CapacityLimiter(1)
        self.store = PictureStore(serve.url_mb * 1e6, serve.url_seconds)

    # -- asking ---------------------------------------------------------------------------------------------------

    async def read_upload(self, request: Request, kind: type[wire.Request]) -> tuple[wire.Request, Uploads]:
        """The fields and the pictures of a form.
        Raises ApiError for the first that is wrong."""
        form = await read_form(request)
        try:
            fields = {name: value for name, value in form.fields.items() if name not in FILES}
            asked = wire.from_form(kind, fields)
            return asked, await open_uploads(form, self.serve.max_megapixels * 1e6, self.openers)
        finally:
            await close(form)

    async def reword(self, asked: wire.Request) -> wire.Request:
        """The request with the prompt that is to be drawn (`Muse.reword`), unless it is to be drawn literally.
        Raises ApiError if it is too long."""
        prompt = prompt_of(asked)
        if prompt is None or asked.literal:
            return asked
        try:
            drawn = await anyio.to_thread.run_sync(self.muse.reword, prompt, limiter=self.readers)
        except ValueError as error:
            raise streams.cannot_draw(error) from error
        return asked.model_copy(update={"prompt": drawn})

    def line_up(self, tasks: Sequence[Task]) -> None:
        """Raises ApiError if the queue is full or the server stops."""
        try:
            self.worker.submit(tasks)
        except QueueFull as error:
            raise queue_full(error.seconds) from error
        except Closed as error:
            raise closing() from error

    # -- answering ------------------------------------------------------------------------------------------------

    async def answer(self, request: Request, asked: wire.ImageRequest, wishes: Wishes, kind: str) -> Response:
        """Pictures of wishes: all at once, or one as a stream."""
        if asked.response_format == "url" and not self.serve.urls:
            raise bad_value("response_format", "this server sends pictures as b64_json only")
        self.note(request, wishes)
        if isinstance(asked, wire.PromptRequest) and asked.stream:
            return await self.stream(request, asked, wishes[0], kind)
        tasks = [Task(wish) for wish in wishes]
        self.line_up(tasks)
        pictures = await streams.all_drawn(request, tasks)
        data = []
        for drawn, asked_for in zip(pictures, wishes, strict=True):
            wish = dataclasses.replace(asked_for, seed=drawn.seed)
            content = await run_in_threadpool(encode, drawn.image, asked.format, asked.compression, wish.text)
            if asked.response_format == "url":
                shown = {"url": self.address(request, self.store.put(content, asked.format))}
            else:
                shown = {"b64_json": streams.base64_of(content)}
            data.append(shown | {"seed": wish.seed} | revised(asked, wish))
        size = size_name(pictures[0].image.size)
        fields = {"background": "opaque", "output_format": asked.format, "size": size, "usage": usage_of(pictures)}
        return JSONResponse({"created": streams.now(), "data": data, **fields})

    async def stream(
        self, request: Request, asked: wire.PromptRequest, wish: Drawing | Alteration, kind: str
    ) -> Response:
        """One picture, after previews if they are asked for, as server-sent events.
        Raises ApiError for what goes wrong before the first of them."""
        progress = streams.Progress()
        task = Task(wish, asked.partial_images or 0, progress.on_preview)
        task.future.add_done_callback(lambda _: progress.on_preview(None))
        self.line_up([task])
        events = self.events(request, asked, progress, task, wish, kind)
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

        return StreamingResponse(all_events(), media_type=streams.EVENTS, headers={"Cache-Control": "no-store"})

    async def events(
        self,
        request: Request,
        asked: wire.PromptRequest,
        progress: streams.Progress,
        task: Task,
        wish: Drawing | Alteration,
        kind: str,
    ) -> AsyncIterator[bytes]:
        """The events of one picture."""
        index = 0
        with streams.abandoned_at_the_end([task]):
            while True:
                shown = await progress.next(request, task)
                if isinstance(shown, Drawn):
                    image, wish = shown.image, dataclasses.replace(wish, seed=shown.seed)
                else:
                    image = shown
                content = await run_in_threadpool(encode, image, asked.format, asked.compression, wish.text)
                fields = {
                    "b64_json": streams.base64_of(content),
                    "created_at": streams.now(),
                    "size": size_name(image.size),
                    "quality": "auto",
                    "background": "opaque",
                    "output_format": asked.format,
                }
                if isinstance(shown, Drawn):
                    more = {"usage": usage_of([shown]), "seed": wish.seed}
                    yield streams.event(f"{kind}.completed", fields | more | revised(asked, wish))
                    return
                yield streams.event(f"{kind}.partial_image", fields | {"partial_image_index": index})
                index += 1

    def address(self, request: Request, name: str) -> str:
        """Where a stored picture can be had."""
        base = self.serve.public_url or str(request.base_url)
        return base.rstrip("/") + PICTURES + name

    def note(self, request: Request, wishes: Wishes) -> None:
        """What the log may know of a request."""
        notes = request.scope["muse.notes"]
        notes["pictures"] = len(wishes)
        if self.serve.log_prompts:
            notes["prompt"] = wishes[0].prompt

    def model_card(self) -> dict[str, Any]:
        """The model as the API lists it; what it draws stands beside."""
        card = {"id": self.muse.name, "object": "model", "created": self.started, "owned_by": "muse"}
        sizes = [size_name(size) for size in offered_sizes(self.muse)]
        return card | {"sizes": sizes, "defaults": dataclasses.asdict(self.muse.defaults)}


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


def revised(asked: wire.ImageRequest, wish: Drawing | Alteration) -> dict[str, str]:
    """What an answer says of a prompt that was drawn in other words, as the API has it."""
    return {} if wish.prompt is None or wish.prompt == prompt_of(asked) else {"revised_prompt": wish.prompt}


def prompt_of(asked: wire.ImageRequest) -> str | None:
    """The prompt of a request, of whatever kind, if it has one."""
    return getattr(asked, "prompt", None)


def add_image_routes(app: FastAPI, server: ImageServer) -> None:
    """The OpenAI Images API."""

    image = "The picture: PNG, WebP or JPEG."
    mask = "A picture of the same size, wholly transparent where the first is to be filled."
    of_edits = wire.schema_of(wire.EditRequest, {"image": image, "mask": mask}, ("image",))
    of_variations = wire.schema_of(wire.VariationRequest, {"image": image}, ("image",))

    @app.post("/v1/images/generations", openapi_extra=wire.schema_of(wire.GenerationRequest, {}))
    async def generations(request: Request) -> Response:
        """Draw pictures of a prompt."""
        asked = wire.from_json(wire.GenerationRequest, await read_json_body(request))
        wishes = drawings(server.muse, server.serve, await server.reword(asked))
        return await server.answer(request, asked, wishes, "image_generation")

    @app.post("/v1/images/edits", openapi_extra=of_edits)
    async def image_edits(request: Request) -> Response:
        """Fill a picture where a mask or it itself is transparent, widen it, or turn all of it into a prompt."""
        asked, uploads = await server.read_upload(request, wire.EditRequest)
        wishes = edits(server.muse, server.serve, await server.reword(asked), uploads)
        return await server.answer(request, asked, wishes, "image_edit")

    @app.post("/v1/images/variations", openapi_extra=of_variations)
    async def image_variations(request: Request) -> Response:
        """Draw pictures near a given one."""
        asked, uploads = await server.read_upload(request, wire.VariationRequest)
        if uploads.mask is not None:
            raise bad_value("mask", "variations take none")
        wishes = variations(server.muse, server.serve, await server.reword(asked), uploads)
        return await server.answer(request, asked, wishes, "image_edit")

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        """The one model that is served."""
        return {"object": "list", "data": [server.model_card()]}

    @app.get("/v1/models/{model:path}")
    async def model(model: str) -> dict[str, Any]:
        """The model, by its name."""
        check_model(server.muse, model)
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
        headers = {
            "Cache-Control": f"private, max-age={server.serve.url_seconds:.0f}",
            "X-Content-Type-Options": "nosniff",
        }
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
