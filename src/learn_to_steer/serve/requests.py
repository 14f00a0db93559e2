"""The requests that the server understands, and the errors that it answers, in OpenAI's form."""

from __future__ import annotations

import secrets
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from learn_to_steer.errors import SteerError
from learn_to_steer.plain_text import one_line
from learn_to_steer.prompts import Relation, analyse, locate, require_characters
from learn_to_steer.serve.jobs import Job
from learn_to_steer.shared_options import MAX_SEED

MAX_PICTURES, MAX_TRIES, MAX_STEPS, MAX_PROMPT, MAX_RELATIONS = 8, 8, 100, 4000, 16
Triple = Annotated[list[str], Field(min_length=3, max_length=3)]
TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}  # of other statuses: by class


class RequestError(Exception):
    """A request that is answered with an error.

    Attributes:
        status: The HTTP status.
        message: What is wrong, and what to do.
        param: The field that is wrong, if it is one.
        code: A word for programs.
        headers: Headers of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code, self.headers = status, message, param, code, headers

    def body(self) -> dict[str, Any]:
        """Return the body of the answer."""
        kind = TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


class ImageRequest(BaseModel):
    """The body of a request to ``/v1/images/generations``. A field that is not here is an error."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    prompt: Annotated[str, Field(min_length=1, max_length=MAX_PROMPT)]
    model: str | None = None
    n: Annotated[int, Field(ge=1, le=MAX_PICTURES)] | None = None
    size: str | None = None
    seed: Annotated[int, Field(ge=0, le=MAX_SEED - MAX_PICTURES)] | None = None
    response_format: Literal["url", "b64_json"] | None = None
    relations: Annotated[list[str | Triple], Field(max_length=MAX_RELATIONS)] | None = None
    steer: bool | None = None
    tries: Annotated[int, Field(ge=1, le=MAX_TRIES)] | None = None
    threshold: Annotated[float, Field(gt=0, le=1)] | None = None
    steps: Annotated[int, Field(ge=1, le=MAX_STEPS)] | None = None

    # Other fields of OpenAI's, with the values for which the answer is right.
    output_format: Literal["png"] | None = None
    background: Literal["auto", "opaque"] | None = None
    stream: Literal[False] | None = None
    # Those that say nothing about this model, and have no effect.
    quality: Any = None
    style: Any = None
    moderation: Any = None
    output_compression: Any = None
    partial_images: Any = None
    user: Any = None

    def jobs(self, resolution: int, grid: int, steered: bool) -> list[Job]:
        """Return a job for each picture; the seed of each is one more than that of the last.

        Args:
            resolution: Default height and width of the model.
            grid: What they are multiples of.
            steered: Whether the model has a classifier.

        Raises:
            RequestError: The size cannot be drawn, a relation is not in the prompt, or there is no classifier.
        """
        if self.steer and not steered:
            raise RequestError(400, "this model is served without a classifier; send steer: false", "steer")
        width, height = _size(self.size, resolution, grid)
        relations = self._relations()
        seed = secrets.randbelow(2**31) if self.seed is None else self.seed
        return [
            Job(
                self.prompt,
                seed + number,
                width,
                height,
                relations=relations,
                found=self.relations is None,
                steer=steered if self.steer is None else self.steer,
                tries=self.tries or 1,
                threshold=self.threshold,
                steps=self.steps,
            )
            for number in range(self.n or 1)
        ]

    def _relations(self) -> tuple[Relation, ...]:
        """Those that were sent, or those in the prompt; with spans."""
        field = "prompt"
        try:
            require_characters(self.prompt)
            if self.relations is None:
                return analyse(self.prompt).relations
            field = "relations"
            texts = [text if isinstance(text, str) else " | ".join(text) for text in self.relations]
            return tuple(locate(self.prompt, Relation.from_text(text)) for text in texts)
        except SteerError as error:
            raise RequestError(400, one_line(str(error)), field, "invalid_value") from error


def parse_request(body: bytes) -> ImageRequest:
    """Return the request in a body.

    Raises:
        RequestError: It is no JSON, or a field is wrong.
    """
    try:
        return ImageRequest.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        field = one_line(str(first["loc"][0]))[:100] if first["loc"] else None
        unknown = first["type"] == "extra_forbidden"
        what = "there is no such field" if unknown else first["msg"]
        raise RequestError(400, f"{field or 'the body'}: {what}", field, "invalid_value") from error


def _size(size: str | None, resolution: int, grid: int) -> tuple[int, int]:
    """Width and height in pixels."""
    if size is None or size == "auto":
        return resolution, resolution
    width, _, height = size.partition("x")
    low, high = max(grid, resolution // 4), 2 * resolution
    sides = [int(one) if one.isascii() and one.isdigit() and len(one) < 6 else 0 for one in (width, height)]
    if not all(low <= side <= high and side % grid == 0 for side in sides):
        raise RequestError(
            400,
            f"size must be WIDTHxHEIGHT in multiples of {grid} from {low} to {high}; "
            f"the model's own is {resolution}x{resolution}",
            "size",
            "invalid_size",
        )
    return sides[0], sides[1]
