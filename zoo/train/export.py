"""The moving average of a checkpoint -> qyolo-nano.onnx, in YOLOX's conventions.

Input BGR in 0..255; output [1, 8400, 85], undecoded, with probabilities. The first convolution
includes the channel order and the division by 255, so that uint8 input is exact in int8. Weights
keep 10 bits of mantissa, as in float16: the file compresses to half of its size.
"""

import argparse
from pathlib import Path
from typing import Final

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from torch import Tensor, nn

from quantizer.model.coco_names import COCO_NAMES
from zoo.train.network import Detector

SIZE: Final = 640
OPSET: Final = 17


class Exported(nn.Module):
    """The network with the teacher's output: rows of box, objectness, classes for each anchor."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor) -> Tensor:
        neck = self.detector.neck(*self.detector.backbone(images))
        levels = []
        for head, x in zip(self.detector.heads, neck, strict=True):
            boxes, objectness, classes = head(x)
            level = torch.cat((boxes, objectness.sigmoid(), classes.sigmoid()), dim=1)
            levels.append(level.reshape(1, 5 + len(COCO_NAMES), -1))
        return torch.cat(levels, dim=2).transpose(1, 2)


def export(checkpoint: Path, target: Path) -> None:
    detector = Detector().eval()
    detector.load_state_dict(torch.load(checkpoint, weights_only=True)["average"])
    first = detector.backbone.stem[0][0]
    with torch.no_grad():
        first.weight.copy_(first.weight.flip(1) / 255)
    torch.onnx.export(
        Exported(detector).eval(), (torch.zeros(1, 3, SIZE, SIZE),), str(target),
        input_names=["images"], output_names=["output"], opset_version=OPSET, dynamo=False,
    )  # fmt: skip
    model = onnx.load(target)
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            values = _rounded(numpy_helper.to_array(tensor))
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    names = str(dict(enumerate(COCO_NAMES)))
    onnx.helper.set_model_props(model, {"names": names, "task": "detect", "license": "Apache-2.0"})
    model.producer_name, model.producer_version = "qyolo", ""
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, target)


def _rounded(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """float32 rounded to 10 bits of mantissa; the exponent keeps its range."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    return ((bits + np.uint32(1 << 12)) & ~np.uint32((1 << 13) - 1)).view(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("target", type=Path, help="the .onnx file to write")
    arguments = parser.parse_args()
    export(arguments.checkpoint, arguments.target)


if __name__ == "__main__":
    main()
