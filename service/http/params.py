"""Query parameters -> a `Query` for the detector."""

import re
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, Final, get_type_hints

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.errors import InvalidRequest, UnknownClass
from service.inference.comparison import Requirements
from service.settings import Settings
from service.vision.agreement import MIN_AGREEMENT
from service.vision.postprocess import Query

MODEL_MEANING: Final = "name of a model, where the server has several; default: the first one"


class BoxParams(BaseModel):
    """Which boxes to return. An unknown parameter is an error, so that typos are noticed."""

    model_config = ConfigDict(extra="forbid")

    conf: float | None = Field(
        None, ge=0, lt=1, allow_inf_nan=False, description="drop boxes at or below this score"
    )
    iou: float | None = Field(
        None,
        gt=0,
        le=1,
        allow_inf_nan=False,
        description="drop boxes that overlap a better one of their class by more",
    )
    max_det: int | None = Field(None, ge=1, le=1000, description="keep at most so many boxes")
    classes: list[str] = Field(
        default_factory=list,
        description="keep only these classes: names or ids, comma-separated or repeated",
    )

    def query(self, settings: Settings, class_names: Sequence[str]) -> Query:
        """These parameters, and the server's defaults for the others; raises UnknownClass."""
        return Query(
            conf=settings.conf if self.conf is None else self.conf,
            iou=settings.iou if self.iou is None else self.iou,
            max_det=settings.max_det if self.max_det is None else self.max_det,
            classes=frozenset(self._class_ids(class_names)) or None,
        )

    def _class_ids(self, class_names: Sequence[str]) -> Iterator[int]:
        names = (part.strip() for item in self.classes for part in item.split(","))
        for text in filter(None, names):
            if text in class_names:
                yield class_names.index(text)
            elif re.fullmatch("[0-9]{1,6}", text) and int(text) < len(class_names):
                yield int(text)
            else:
                raise UnknownClass(f"no class {text!r}; /v1/models lists {len(class_names)} names")


class ImageParams(BoxParams):
    """BoxParams, and whether the image may be kept."""

    collect: bool = Field(
        True, description="false: the server never keeps this image, even if it collects some"
    )


class DetectParams(ImageParams):
    """ImageParams, a model and its variant."""

    variant: str | None = Field(
        None, description="fp32, int8 or auto: the one of the A/B split, else the default"
    )
    model: str | None = Field(None, description=MODEL_MEANING)


class CompareParams(BoxParams):
    """BoxParams, a model and two of its variants."""

    a: str | None = Field(None, description="one variant; default: fp32 if the model has it")
    b: str | None = Field(None, description="the other one; default: int8 if the model has it")
    model: str | None = Field(None, description=MODEL_MEANING)


class ReloadParams(BaseModel):
    """What a new version of a model must fulfil."""

    model_config = ConfigDict(extra="forbid")

    min_agreement: float = Field(
        MIN_AGREEMENT,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="least agreement with the boxes of the served version, 0 to 1",
    )
    new_classes: bool = Field(False, description="true: the classes may be others")

    @property
    def requirements(self) -> Requirements:
        return Requirements(self.min_agreement, self.new_classes)


class RecalibrateParams(ReloadParams):
    """What a new calibration must fulfil, and whether it is served then."""

    switch: bool = Field(
        False, description="true: serve it once it has passed the checks; false: only compare it"
    )


class ParamsRoute(APIRoute):
    """A route that reads the query without FastAPI's dependencies.

    FastAPI resolves those for each request, which takes as long as decoding the raw boxes. The
    OpenAPI document, the values and the errors are the same. The endpoint takes the request, the
    path's parameters as text, and `params`, a model of the query.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        endpoint = self.endpoint
        model: type[BaseModel] = get_type_hints(endpoint)["params"]
        fields = model.model_fields.items()
        lists = frozenset(name for name, field in fields if field.default_factory is list)

        async def handle(request: Request) -> Response:
            query = request.query_params  # of a parameter that is repeated, the last value counts
            values = {name: query.getlist(name) if name in lists else query[name] for name in query}
            try:
                params = model.model_validate(values)
            except ValidationError as exc:
                errors = exc.errors(include_url=False)
                lines = (f"query.{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in errors)
                raise InvalidRequest("; ".join(lines)) from exc
            response: Response = await endpoint(request, **request.path_params, params=params)
            return response

        return handle
