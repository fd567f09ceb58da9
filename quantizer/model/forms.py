"""The forms in which heads leave a model, and what an output lacks to be one of them."""

from dataclasses import dataclass
from typing import Final, Self

import numpy as np

from quantizer.model.decode_tail import decode_tail, last_convolutions
from quantizer.model.float_model import FloatModel
from quantizer.model.outputs import are_probabilities, is_joined
from service.vision.detections import Floats
from service.vision.heads import HeadName, cells_of
from service.vision.input_size import InputSize

MAX_FRACTION: Final = 2.0  # of the image: the median of a coordinate, in pixels half the size
# What a head may do to its raw maps without decoding them into pixels.
RAW_OPERATORS: Final = frozenset(
    {"Concat", "Flatten", "Identity", "Reshape", "Sigmoid", "Squeeze", "Transpose", "Unsqueeze"}
)


@dataclass(frozen=True, slots=True)
class Output:
    """What tells the form of a model's output."""

    name: str
    shape: tuple[int, ...]
    joined: bool  # from one output of boxes and one of scores
    tail: frozenset[str]  # the operators of the decode tail
    size: InputSize
    cells: tuple[int, ...]  # of strides 8, 16 and 32, and of the maps that this model has
    exported: tuple[str, ...]  # the names and the shapes of the file's outputs

    @classmethod
    def of(cls, model: FloatModel) -> Self:
        graph, standard = model.graph, cells_of(model.size)
        shapes = {graph.shapes.get(node.output[0], ())[2:] for node in last_convolutions(graph)}
        own = sum(shape[0] * shape[1] for shape in shapes if len(shape) == 2)
        return cls(
            graph.outputs[0],
            model.output_shape,
            is_joined(graph),
            frozenset(node.op_type for node in decode_tail(graph)),
            model.size,
            tuple(dict.fromkeys((standard, own or standard))),
            model.outputs,
        )

    @property
    def text(self) -> str:
        """The outputs, and what the first comes from, for a message."""
        shape = ",".join(map(str, self.shape))
        tail = ", ".join(sorted(self.tail)) or "no operators"
        at = f"at {self.size.text}, {self.cells[0]} cells"
        text = f"output {self.name} is [{shape}] after {tail} {at}"
        if len(self.exported) < 2:
            return text
        return f"{text}, of the outputs {', '.join(self.exported)}"


@dataclass(frozen=True, slots=True)
class Form:
    """One form of an output: `text` is its shape, `name` the YOLOs that have it.

    first_class: the column of the first class; None where a row has one score and a class number.
    across: its rows are columns for the head's decoder.
    """

    head: HeadName
    text: str
    name: str
    first_class: int | None
    across: bool = False

    @property
    def rows_last(self) -> bool:
        return (self.head == "yolov8") != self.across

    def contradictions(self, output: Output) -> list[str]:
        """Why the head's decoder cannot read the output at all."""
        if len(output.shape) != 3 or output.shape[0] != 1:
            return [f"decoded boxes of one image in three dimensions, not {list(output.shape)}"]
        columns, rows = self._sides(output.shape)
        if self.across and rows <= columns:
            return [f"more rows than its {columns} columns, not {rows}"]
        if self.first_class is None and columns != 6:
            return [f"rows of 6 numbers, not {columns}"]
        if self.first_class is not None and columns <= self.first_class:
            return [f"a column for a class after the first {self.first_class}, not {columns}"]
        return []

    def missing(self, output: Output) -> list[str]:
        """What the output lacks to have this form; nothing if it may have it."""
        if lacking := self.contradictions(output):
            return lacking
        columns, rows = self._sides(output.shape)
        if self.first_class is None:
            most = output.cells[0] // 4
            return [] if rows < most else [f"fewer than {most} rows, not {rows}"]
        lacking = []
        if rows <= columns and rows not in output.cells:
            lacking.append(f"more rows than its {columns} columns, not {rows}")
        decoded = not output.tail <= RAW_OPERATORS
        if self.head == "yolox":
            if rows != output.cells[0]:
                lacking.append(f"{output.cells[0]} rows, not {rows}")
            if decoded:
                lacking.append("boxes that are not decoded in the graph")
            return lacking
        # The rows of other heads with an objectness are the cells times any number of anchors.
        if self.first_class == 4 and all(rows % cells for cells in output.cells):
            lacking.append(f"a multiple of {output.cells[0]} rows, not {rows}")
        if output.joined and self.first_class != 4:
            lacking.append("boxes and scores in one output")
        # What only scales the maps may have been folded into the last convolutions of [1,4+C,N].
        if not decoded and (self.across or self.head != "yolov8"):
            lacking.append("boxes that are decoded in the graph")
        return lacking

    def class_count(self, shape: tuple[int, ...]) -> int | None:
        """How many classes the output has columns for; None where its shape does not show it."""
        return None if self.first_class is None else self._sides(shape)[0] - self.first_class

    def fits(self, output: Floats) -> bool:
        """Whether the boxes may be what the head writes: corners have their right right of left."""
        if self.head != "yolonas":
            return True
        left, top, right, bottom = (output[0] if self.rows_last else output[0].T)[:4]
        return bool((right >= left).all() and (bottom >= top).all())

    def columns_unlike_scores(self, output: Floats) -> list[int]:
        """The columns of classes that leave 0..1, where others do not: of logits all do."""
        if self.first_class is None:
            return []
        columns = output[0] if self.rows_last else output[0].T
        unlike = [
            index
            for index, column in enumerate(columns)
            if index >= self.first_class and not are_probabilities(column)
        ]
        return unlike if len(unlike) < len(columns) - self.first_class else []

    def in_fractions(self, output: Floats) -> bool:
        """Whether the boxes are fractions of the image: pixels of cells reach across it."""
        if self.first_class is None or self.head == "yolox":
            return False
        boxes = (output[0] if self.rows_last else output[0].T)[:4]
        return bool(np.median(np.abs(boxes), axis=1).max() <= MAX_FRACTION)

    def first_logit(self, output: Floats) -> int | None:
        """The first of the columns that hold logits; None where its scores are probabilities."""
        if self.first_class is None:
            return None
        columns = output[0] if self.rows_last else output[0].T
        if not are_probabilities(columns[4 : self.first_class]):
            return 4
        return None if are_probabilities(columns[self.first_class :]) else self.first_class

    def _sides(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Columns and rows."""
        return (shape[1], shape[2]) if self.rows_last else (shape[2], shape[1])


# The most likely first.
FORMS: Final = (
    Form("end2end", "[1,K,6]", "YOLOv10, YOLO26", None),
    Form("yolov8", "[1,4+C,N]", "YOLOv8 to YOLO12", 4),
    Form("yolox", "[1,N,5+C] undecoded", "YOLOX", 5),
    Form("yolov5", "[1,N,5+C]", "YOLOv5, YOLOv6, YOLOv7", 5),
    Form("yolov8", "[1,N,4+C]", "YOLOv8 transposed", 4, across=True),
    Form("yolonas", "[1,N,4+C] of corners", "YOLO-NAS, also as [1,N,4] and [1,N,C]", 4),
    Form("yolonas", "[1,4+C,N] of corners", "YOLO-NAS transposed", 4, across=True),
)
