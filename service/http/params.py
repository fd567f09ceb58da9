"""Query parameters of a request -> what to ask of the detector."""

import re
from collections.abc import Iterator, Sequence

from pydantic import BaseModel, ConfigDict, Field

from service.errors import UnknownClass
from service.settings import Settings
from service.vision.postprocess import Query


class BoxParams(BaseModel):
    """Which boxes the answer holds. An unknown parameter is an error: a typo would go unseen."""

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
        """These wishes, completed by the server's defaults; raises UnknownClass."""
        return Query(
            conf=settings.conf if self.conf is None else self.conf,
            iou=settings.iou if self.iou is None else self.iou,
            max_det=settings.max_det if self.max_det is None else self.max_det,
            classes=frozenset(self._class_ids(class_names)) or None,
        )

    def _class_ids(self, class_names: Sequence[str]) -> Iterator[int]:
        wanted = (part.strip() for item in self.classes for part in item.split(","))
        for text in filter(None, wanted):
            if text in class_names:
                yield class_names.index(text)
            elif re.fullmatch("[0-9]{1,6}", text) and int(text) < len(class_names):
                yield int(text)
            else:
                raise UnknownClass(f"no class {text!r}; /v1/models lists {len(class_names)} names")


class ImageParams(BoxParams):
    """BoxParams, and what may happen to the image."""

    collect: bool = Field(
        True, description="false: the server never keeps this image, even if it collects some"
    )


class DetectParams(ImageParams):
    """ImageParams and the variant to ask."""

    variant: str | None = Field(
        None, description="fp32, int8 or auto: what the A/B split gives, or the default one"
    )


class CompareParams(BoxParams):
    """BoxParams and the two variants to ask."""

    a: str | None = Field(None, description="one variant; fp32 where there is one")
    b: str | None = Field(None, description="the other variant; int8 where there is one")
