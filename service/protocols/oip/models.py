"""The two models that the Open Inference Protocol shows of one detector.

NAME        a tensor in, the raw head out: the graph as its exporter wrote it
NAME-boxes  an encoded picture in, boxes out: the same with all that is around it
"""

from collections.abc import Mapping
from typing import Final, Protocol

from pydantic import ValidationError

from service.errors import BadRequest, ModelNotFound
from service.http.params import BoxParams
from service.http.validation import first_error
from service.inference.backend import InferenceBackend
from service.manifest import Manifest
from service.protocols.oip.messages import Asked, Given
from service.protocols.oip.tensors import Port
from service.settings import Settings
from service.vision.heads import STRIDES

BOXES_SUFFIX: Final = "-boxes"
BOX_OUTPUTS: Final = (
    Port("boxes", "FP32", (-1, 4)),  # left, top, right, bottom in pixels of the picture
    Port("scores", "FP32", (-1,)),
    Port("class_ids", "INT64", (-1,)),
    Port("labels", "BYTES", (-1,)),
)


class Model(Protocol):
    """What has a name, ports and answers under /v2."""

    name: str
    input: Port
    outputs: tuple[Port, ...]
    parameters: Mapping[str, str]  # of its configuration

    async def infer(self, asked: Asked, version: str) -> Given:
        """Raises BadRequest and what the pipeline raises."""


class TensorModel:
    """The engine alone."""

    def __init__(self, pipeline: InferenceBackend) -> None:
        manifest = pipeline.variants.manifest
        self._pipeline = pipeline
        self.name = manifest.name
        self.input = Port(manifest.input_name, "FP32", (1, 3, manifest.size, manifest.size))
        shape = manifest.output_shape or (-1, -1, -1)
        self.outputs: tuple[Port, ...] = (Port(manifest.output_name, "FP32", shape),)
        self.parameters: Mapping[str, str] = {"metadata": repr(_exported(manifest))}

    async def infer(self, asked: Asked, version: str) -> Given:
        for name in asked.parameters:
            raise BadRequest(f"no parameter {name!r}: {self.name} answers raw tensors")
        assert not isinstance(asked.value, bytes)
        answer = await self._pipeline.infer(asked.value, version)
        return Given(answer.variant, {self.outputs[0].name: answer.output})


class BoxModel:
    """The whole detector; parameters are `conf`, `iou`, `max_det` and `classes`."""

    def __init__(self, pipeline: InferenceBackend, settings: Settings) -> None:
        self._pipeline = pipeline
        self._settings = settings
        self._manifest = pipeline.variants.manifest
        self.name = self._manifest.name + BOXES_SUFFIX
        self.input = Port("image", "BYTES", (1,))
        self.outputs: tuple[Port, ...] = BOX_OUTPUTS
        self.parameters: Mapping[str, str] = {}

    async def infer(self, asked: Asked, version: str) -> Given:
        query = _box_params(asked.parameters).query(self._settings, self._manifest.class_names)
        assert isinstance(asked.value, bytes)
        answer = await self._pipeline.detect(asked.value, version, query)
        found = answer.detections
        labels = [self._manifest.class_name(class_id) for class_id in found.class_ids.tolist()]
        columns = (found.xyxy, found.scores, found.class_ids, labels)
        names = (output.name for output in self.outputs)
        return Given(answer.variant, dict(zip(names, columns, strict=True)))


def find_model(name: str, pipeline: InferenceBackend, settings: Settings) -> Model:
    """Raises ModelNotFound."""
    both: tuple[Model, ...] = (TensorModel(pipeline), BoxModel(pipeline, settings))
    for model in both:
        if model.name == name:
            return model
    names = ", ".join(names_of(pipeline.variants.manifest))
    raise ModelNotFound(f"no model {name!r}; there are: {names}")


def names_of(manifest: Manifest) -> tuple[str, str]:
    return manifest.name, manifest.name + BOXES_SUFFIX


def _exported(manifest: Manifest) -> dict[str, object]:
    """What Ultralytics' exporter says of a model, for its Triton client, which looks for it."""
    return {
        "task": "detect",
        "batch": 1,
        "stride": STRIDES[-1],
        "imgsz": [manifest.size, manifest.size],
        "names": dict(enumerate(manifest.class_names)),
    }


def _box_params(parameters: Mapping[str, object]) -> BoxParams:
    wishes = dict(parameters)
    if isinstance(classes := wishes.get("classes"), str):
        wishes["classes"] = [classes]  # a parameter is one value: commas separate the classes
    try:
        return BoxParams.model_validate(wishes)
    except ValidationError as exc:
        raise BadRequest(first_error(exc, "parameters")) from exc
