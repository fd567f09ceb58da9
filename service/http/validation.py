"""What pydantic finds wrong, in one line, and little enough of it."""

from typing import Any, Final

from pydantic import BaseModel, ValidationError, model_validator
from pydantic_core import PydanticCustomError

MOST_FIELDS: Final = 64


class BoundedObject(BaseModel):
    """Of an untrusted JSON object: pydantic would note a fault for each of a million fields."""

    @model_validator(mode="before")
    @classmethod
    def _are_few(cls, given: Any) -> Any:
        if isinstance(given, dict) and len(given) > MOST_FIELDS:
            raise PydanticCustomError("many", f"there are more than {MOST_FIELDS} fields")
        return given


def first_error(exc: ValidationError, whole: str = "body") -> str:
    """The place and the reason of the first fault; `whole` is the place when it is everything."""
    fault = exc.errors(include_url=False, include_input=False, include_context=False)[0]
    return f"{'.'.join(map(str, fault['loc'])) or whole}: {fault['msg']}"
