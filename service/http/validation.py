"""Errors of pydantic, as one line of bounded length."""

from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from service.errors import BadRequest

MAX_FIELDS: Final = 64

T = TypeVar("T", bound=BaseModel)


class BoundedObject(BaseModel):
    """Base class for untrusted JSON objects: limits their fields, since each may be an error."""

    @model_validator(mode="before")
    @classmethod
    def _limit_fields(cls, value: Any) -> Any:
        if isinstance(value, dict) and len(value) > MAX_FIELDS:
            raise PydanticCustomError("many", f"there are more than {MAX_FIELDS} fields")
        return value


def validated(model: type[T], untrusted: object, root: str = "body", prefix: str = "") -> T:
    """JSON as bytes, or an object that has been parsed -> an instance of the model.

    Raises BadRequest with the location and the message of the first error, after the prefix; `root`
    is the location of the whole input.
    """
    try:
        if isinstance(untrusted, bytes):
            return model.model_validate_json(untrusted)
        return model.model_validate(untrusted)
    except ValidationError as exc:
        error = exc.errors(include_url=False, include_input=False, include_context=False)[0]
        location = ".".join(map(str, error["loc"])) or root
        raise BadRequest(f"{prefix}{location}: {error['msg']}") from exc
