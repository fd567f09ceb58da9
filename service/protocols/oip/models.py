"""The two models of one detector in the Open Inference Protocol.

NAME        a tensor -> the raw head: the graph as its exporter wrote it
NAME-boxes  an encoded image -> boxes: the same with pre- and postprocessing
"""

from collections.abc import Mapping
from typing import Final

from service.errors import BadRequest, ModelNotFound
from service.http.params import BoxParams
from service.http.validation import validated
from service.inference.backend import ImageRequest, InferenceBackend
from service.inference.models import Model, Models
from service.inference.results import Answer, RawAnswer
from service.manifest import Manifest
from service.protocols.oip.messages import InferRequest, Outputs
from service.protocols.oip.tensors import Port
from service.settings import Settings
from service.vision.heads import STRIDES

BOXES_SUFFIX: Final = "-boxes"
BOX_OUTPUTS: Final = (
    Port("boxes", "FP32", (-1, 4)),  # left, top, right, bottom in pixels of the image
    Port("scores", "FP32", (-1,)),
    Port("class_ids", "INT64", (-1,)),
    Port("labels", "BYTES", (-1,)),
)


class TensorModel:
    """The engine without pre- and postprocessing."""

    def __init__(self, manifest: Manifest) -> None:
        self.name, size = manifest.name, manifest.size
        self.input = Port(manifest.input_name, "FP32", (1, 3, size.height, size.width))
        shape = manifest.output_shape or (-1, -1, -1)
        self.outputs: tuple[Port, ...] = (Port(manifest.output_name, "FP32", shape),)
        self.parameters = {"metadata": repr(_ultralytics_metadata(manifest))}  # of its config

    async def infer(
        self, backend: InferenceBackend, message: InferRequest, variant: str
    ) -> tuple[RawAnswer, Outputs]:
        """The backend's answer, and the values of all outputs; raises BadRequest."""
        for name in message.parameters:
            raise BadRequest(f"no parameter {name!r}: {self.name} answers raw tensors")
        assert not isinstance(message.value, bytes)
        answer = await backend.infer(message.value, variant)
        return answer, {self.outputs[0].name: answer.output}


class BoxModel:
    """The whole detector; its parameters are `conf`, `iou`, `max_det` and `classes`."""

    def __init__(self, manifest: Manifest, settings: Settings) -> None:
        self._settings = settings
        self._manifest = manifest
        self.name = self._manifest.name + BOXES_SUFFIX
        self.input = Port("image", "BYTES", (1,))
        self.outputs = BOX_OUTPUTS
        self.parameters: dict[str, str] = {}

    async def infer(
        self, backend: InferenceBackend, message: InferRequest, variant: str
    ) -> tuple[Answer, Outputs]:
        """The backend's answer, and the values of all outputs; raises BadRequest."""
        query = _box_params(message.parameters).query(self._settings, self._manifest.class_names)
        assert isinstance(message.value, bytes)
        answer = await backend.detect(ImageRequest(message.value, query), variant)
        boxes = answer.detections
        labels = [self._manifest.class_name(class_id) for class_id in boxes.class_ids.tolist()]
        columns = (boxes.xyxy, boxes.scores, boxes.class_ids, labels)
        names = (output.name for output in self.outputs)
        return answer, dict(zip(names, columns, strict=True))


def find_model(
    name: str, models: Models, settings: Settings
) -> tuple[Model, TensorModel | BoxModel]:
    """The model that is served, and the one of the protocol; raises ModelNotFound."""
    known = models_by_name(models)
    if name not in known:
        raise ModelNotFound(f"no model {name!r}; there are: {', '.join(known)}")
    model = known[name]
    if name == model.name:
        return model, TensorModel(model.manifest)
    return model, BoxModel(model.manifest, settings)


def models_by_name(models: Models) -> Mapping[str, Model]:
    """NAME and NAME-boxes -> the model; a name that means two things is the tensor model's."""
    known: dict[str, Model] = {}
    for model in models:
        known[model.name] = model
        known.setdefault(model.name + BOXES_SUFFIX, model)
    return known


def _ultralytics_metadata(manifest: Manifest) -> dict[str, object]:
    """What Ultralytics' exporter writes into a model, which its Triton client reads."""
    return {
        "task": "detect",
        "batch": 1,
        "stride": STRIDES[-1],
        "imgsz": [manifest.size.height, manifest.size.width],
        "names": dict(enumerate(manifest.class_names)),
    }


def _box_params(parameters: Mapping[str, object]) -> BoxParams:
    params = dict(parameters)
    if isinstance(classes := params.get("classes"), str):
        params["classes"] = [classes]  # a parameter is one value: commas separate the classes
    return validated(BoxParams, params, "parameters")
