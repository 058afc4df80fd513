"""What goes wrong, in the JSON that clients of the OpenAI API read.
Source: the API's public reference, "Error codes"; `openai.APIStatusError` of its Python client."""

from typing import Any

from starlette.responses import JSONResponse

REFUSED, FAILED = "invalid_request_error", "server_error"


class ApiError(Exception):
    """An answer that is no picture: status, message, and the parameter that is to blame if it is one."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ):
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = headers or {}

    def body(self) -> dict[str, Any]:
        """The API's own shape."""
        kind = FAILED if self.status >= 500 else "rate_limit_error" if self.status == 429 else REFUSED
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        return JSONResponse(self.body(), self.status, headers=self.headers)


def bad_value(param: str, problem: str) -> ApiError:
    """A parameter whose value cannot be used."""
    return ApiError(400, f"Invalid value for '{param}': {problem}.", param=param, code="invalid_value")


def queue_full(seconds: int) -> ApiError:
    """More waits than may; come again after some seconds."""
    message = f"The server is busy and its queue is full; try again in {seconds} s."
    return ApiError(429, message, code="queue_full", headers={"Retry-After": str(seconds)})


def closing() -> ApiError:
    """The server has been told to stop."""
    return ApiError(503, "The server is shutting down.", code="shutting_down", headers={"Retry-After": "5"})


def failed() -> ApiError:
    """A fault of ours; what it was stands in the log."""
    return ApiError(500, "The picture could not be drawn; the server's log says why.", code="internal_error")
