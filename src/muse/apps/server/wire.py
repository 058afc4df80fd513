"""Requests as the OpenAI Images API has them, with the fields that are our own, and nothing that is not one of them.
Source: the API's public reference and the parameter types of its Python client, `openai.types.image_*_params`."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import ErrorDetails

from muse.apps.server.errors import ApiError, bad_value
from muse.apps.server.options import MOST_PICTURES, Serve
from muse.apps.server.pictures import Format
from muse.requests import LARGEST_SEED
from muse.sampling import EditOptions, SamplingOptions
from muse.sampling.options import STRONGEST

LONGEST_PROMPT = 32_000
"""Letters, as the API has it; the text encoder of a model may read fewer words."""
LONGEST_NAME = 256
MOST_MARGIN = 100_000
Options = TypeVar("Options", SamplingOptions, EditOptions)


class ImageRequest(BaseModel):
    """What all three verbs take. Everything but the prompt may be left out or null."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    model: str | None = Field(None, max_length=LONGEST_NAME)
    n: int | None = Field(None, ge=1, le=MOST_PICTURES)
    size: str | None = Field(None, max_length=LONGEST_NAME)
    response_format: Literal["url", "b64_json"] | None = None
    output_format: Format | None = None
    output_compression: int | None = Field(None, ge=0, le=100)
    user: str | None = Field(None, max_length=LONGEST_NAME)
    negative_prompt: str | None = Field(None, max_length=LONGEST_PROMPT)
    literal: bool | None = None
    seed: int | None = Field(None, ge=0, le=LARGEST_SEED)
    steps: int | None = Field(None, ge=1)
    guidance: float | None = Field(None, ge=0, le=STRONGEST)
    guidance_ramp: Literal["linear", "constant"] | None = None
    sampler: Literal["confidence", "halton"] | None = None
    temperature: float | None = Field(None, ge=0, le=STRONGEST)
    top_k: int | None = Field(None, ge=1)
    choice_noise: float | None = Field(None, ge=0, le=STRONGEST)
    remask: float | None = Field(None, ge=0, le=1)
    refresh: int | None = Field(None, ge=1)
    superres_steps: int | None = Field(None, ge=1)
    superres_guidance: float | None = Field(None, ge=0, le=STRONGEST)
    superres_temperature: float | None = Field(None, ge=0, le=STRONGEST)

    @field_validator("prompt", "negative_prompt", check_fields=False)
    @classmethod
    def is_not_blank(cls, value: str | None) -> str | None:
        if value is not None and not value.strip():
            raise ValueError("it is empty")
        return value

    @property
    def num(self) -> int:
        return self.n or 1

    @property
    def tried(self) -> int:
        """Seeds that are tried for each picture."""
        return 1

    @property
    def format(self) -> Format:
        return self.output_format or "png"

    @property
    def compression(self) -> int:
        """How well JPEG and WebP keep a picture, 0 to 100."""
        return 100 if self.output_compression is None else self.output_compression

    def check(self, serve: Serve) -> None:
        """Raises ApiError for what this server does not do."""
        if self.num > serve.most_pictures:
            raise bad_value("n", f"it is {self.num}, and at most {serve.most_pictures} pictures are drawn at a time")
        if self.compression < 100 and self.format == "png":
            raise bad_value("output_compression", "a PNG is whole; it goes with webp and jpeg")
        if self.seed is not None and self.seed > LARGEST_SEED - self.num * self.tried + 1:
            raise bad_value("seed", f"seeds count up from it, and the largest is {LARGEST_SEED}")
        for name in ("steps", "superres_steps", "iterations"):
            asked = getattr(self, name, None)
            if asked is not None and asked > serve.max_steps:
                raise bad_value(name, f"it is {asked}, and this server draws in at most {serve.max_steps}")

    def given(self, kind: type, prefix: str = "") -> dict[str, Any]:
        """The fields of an options dataclass that the request says."""
        found = {field.name: getattr(self, prefix + field.name, None) for field in dataclasses.fields(kind)}
        return {name: value for name, value in found.items() if value is not None}

    def options(self, defaults: Options, serve: Serve, prefix: str = "") -> Options:
        """Options as the request has them; what it does not say is as it was, in no more steps than the server takes.
        Raises ApiError for values that do not go."""
        name = "steps" if isinstance(defaults, SamplingOptions) else "iterations"
        few = {name: min(getattr(defaults, name), serve.max_steps)}
        try:
            return dataclasses.replace(defaults, **few | self.given(type(defaults), prefix))
        except ValueError as error:
            raise ApiError(400, f"{error}.", param=prefix + str(error).split()[0], code="invalid_value") from error


class PromptRequest(ImageRequest):
    """What drawing and editing take: a prompt, and a stream if one wants to look on."""

    prompt: str = Field(max_length=LONGEST_PROMPT)
    stream: bool | None = None
    partial_images: int | None = Field(None, ge=0, le=3)
    background: Literal["opaque", "auto"] | None = None
    quality: Literal["auto", "standard"] | None = None
    moderation: Literal["low", "auto"] | None = None
    safety_identifier: str | None = Field(None, max_length=LONGEST_NAME)

    def check(self, serve: Serve) -> None:
        super().check(serve)
        if self.stream and self.num > 1:
            raise bad_value("n", "a stream shows one picture; ask for the others without stream, or one after another")
        if self.stream and self.response_format == "url":
            raise bad_value("response_format", "a stream sends pictures as b64_json")
        if self.partial_images and not self.stream:
            raise bad_value("partial_images", "they come with stream only")


class GenerationRequest(PromptRequest):
    """`POST /v1/images/generations`, in JSON."""

    best_of: int | None = Field(None, ge=1)

    def check(self, serve: Serve) -> None:
        super().check(serve)
        if self.tried > serve.max_best_of:
            raise bad_value("best_of", f"it is {self.tried}, and this server tries at most {serve.max_best_of}")

    @property
    def tried(self) -> int:
        """Seeds that are tried for each picture."""
        return self.best_of or 1


class EditRequest(PromptRequest):
    """`POST /v1/images/edits`: a form with an image, and a mask or none, beside these fields."""

    input_fidelity: Literal["low"] | None = None
    context: float | None = Field(None, ge=1, le=STRONGEST)
    left: int | None = Field(None, ge=0, le=MOST_MARGIN)
    right: int | None = Field(None, ge=0, le=MOST_MARGIN)
    top: int | None = Field(None, ge=0, le=MOST_MARGIN)
    bottom: int | None = Field(None, ge=0, le=MOST_MARGIN)
    iterations: int | None = Field(None, ge=1)
    share: float | None = Field(None, gt=0, le=1)
    most_changed: float | None = Field(None, gt=0, le=1)

    def refuse(self, names: Sequence[str], problem: str) -> None:
        """Raises ApiError if one of some fields is given that say nothing in this kind of edit."""
        for name in names:
            if getattr(self, name) is not None:
                raise bad_value(name, problem)


class VariationRequest(ImageRequest):
    """`POST /v1/images/variations`: a form with an image beside these fields."""

    prompt: str | None = Field(None, max_length=LONGEST_PROMPT)
    strength: float | None = Field(None, ge=0, le=1)


Request = TypeVar("Request", bound=ImageRequest)


def from_json(kind: type[Request], body: bytes) -> Request:
    """Read a JSON body.
    Raises ApiError that names the first parameter that is wrong."""
    try:
        return kind.model_validate_json(body, strict=True)
    except ValidationError as error:
        raise explain(error.errors(include_url=False, include_input=False)[0]) from error


def from_form(kind: type[Request], fields: dict[str, str]) -> Request:
    """Read the fields of a form, in which numbers are written out.
    Raises ApiError that names the first parameter that is wrong."""
    try:
        return kind.model_validate_strings(fields, strict=True)
    except ValidationError as error:
        raise explain(error.errors(include_url=False, include_input=False)[0]) from error


def explain(error: ErrorDetails) -> ApiError:
    """What is wrong with a request, without repeating what it holds."""
    param = str(error["loc"][0])[:100] if error["loc"] else None
    match error["type"]:
        case "missing":
            message, code = f"Missing required parameter: '{param}'.", "missing_required_parameter"
        case "extra_forbidden":
            message, code = f"Unknown parameter: {param!r}.", "unknown_parameter"
        case "json_invalid":
            return ApiError(400, "The body is not JSON in UTF-8.", code="invalid_json")
        case _ if param is None:
            return ApiError(400, "The body is not a JSON object.", code="invalid_json")
        case _:
            problem = error["msg"].removeprefix("Value error, ")
            return bad_value(param, problem[:1].lower() + problem[1:300])
    return ApiError(400, message, param=param, code=code)


def schema_of(kind: type[ImageRequest], files: dict[str, str], required: tuple[str, ...] = ()) -> dict[str, Any]:
    """The OpenAPI description of a request body; `files` are what a form holds beside the fields."""
    schema = kind.model_json_schema()
    schema["properties"] |= {
        name: {"type": "string", "format": "binary", "description": text} for name, text in files.items()
    }
    schema["required"] = [*schema.get("required", ()), *required]
    kind_of_body = "multipart/form-data" if files else "application/json"
    return {"requestBody": {"required": True, "content": {kind_of_body: {"schema": schema}}}}
