"""Errors of pydantic, as one line of bounded length."""

from typing import Any, Final

from pydantic import BaseModel, ValidationError, model_validator
from pydantic_core import PydanticCustomError

MAX_FIELDS: Final = 64


class BoundedObject(BaseModel):
    """Base class for untrusted JSON objects; else a million fields make a million errors."""

    @model_validator(mode="before")
    @classmethod
    def _limit_fields(cls, value: Any) -> Any:
        if isinstance(value, dict) and len(value) > MAX_FIELDS:
            raise PydanticCustomError("many", f"there are more than {MAX_FIELDS} fields")
        return value


def first_error(exc: ValidationError, root: str = "body") -> str:
    """The location and the message of the first error; `root` names the whole input."""
    error = exc.errors(include_url=False, include_input=False, include_context=False)[0]
    return f"{'.'.join(map(str, error['loc'])) or root}: {error['msg']}"
