"""Which YOLO a model is: its head's layout, its preprocessing and its classes, from the graph."""

import ast
from dataclasses import dataclass
from pathlib import Path

from quantizer.errors import BadOption, UnsupportedModel
from quantizer.model.coco_names import COCO_NAMES
from quantizer.model.decode_tail import decode_tail
from quantizer.model.float_model import FloatModel, read_float_model
from service.vision.heads import HEADS, Head, HeadName, cells_of
from service.vision.preprocess import PREPROCESS, Preprocess, PreprocessName

# What a head may do to its raw maps without decoding them into pixels.
RAW_OPERATORS = frozenset(
    {"Concat", "Flatten", "Identity", "Reshape", "Sigmoid", "Squeeze", "Transpose", "Unsqueeze"}
)


@dataclass(frozen=True, slots=True)
class Layout:
    """How a model's input is made and how its output is read."""

    head: HeadName
    preprocess: PreprocessName
    class_names: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class FloatDetector(FloatModel):
    """A float model whose layout is known."""

    layout: Layout

    @property
    def head(self) -> Head:
        return HEADS[self.layout.head]

    @property
    def preprocess(self) -> Preprocess:
        return PREPROCESS[self.layout.preprocess]


def read_detector(
    path: Path,
    size: int,
    head: HeadName | None = None,
    preprocess: PreprocessName | None = None,
    classes: Path | None = None,
) -> FloatDetector:
    """Read an ONNX file and recognise its layout; raises what `recognise` raises."""
    model = read_float_model(path, size)
    layout = recognise(model, head, preprocess, classes)
    return FloatDetector(model.graph, size, model.metadata, layout)


def recognise(
    model: FloatModel,
    head: HeadName | None = None,
    preprocess: PreprocessName | None = None,
    classes: Path | None = None,
) -> Layout:
    """The layout that the graph shows; arguments that are given override it.

    Raises UnsupportedModel for a model of an unknown layout, BadOption for an argument that
    contradicts the model.
    """
    _refuse_other_tasks(model)
    tail = {operator.op_type for operator in decode_tail(model.graph)}
    head = head or _head(model, tail)
    class_count = _class_count(head, model.output_shape)
    # Of the anchor-free heads with an objectness, only YOLOX decodes with Exp, or not at all.
    is_yolox = head == "yolox" or (head == "yolov5" and "Exp" in tail)
    return Layout(
        head,
        preprocess or ("yolox" if is_yolox else "yolo"),
        _class_names(model, classes, class_count),
    )


def _head(model: FloatModel, tail: set[str]) -> HeadName:
    """The head by the shape of the output and, for YOLOX, by the absence of a decode.

    1. [1,K,6] with fewer rows than the input has cells: boxes that were already selected.
    2. [1,4+C,N] with N the number of cells: YOLOv8 and its successors.
    3. [1,N,5+C] with N the number of cells and nothing in the tail that computes pixels: YOLOX.
    4. [1,N,5+C] with more rows than columns otherwise: YOLOv5 and its successors.
    """
    cells = cells_of(model.size)
    match model.output_shape:
        case (1, rows, 6) if rows < cells // 4:
            return "end2end"
        case (1, columns, rows) if columns >= 5 and rows > columns and rows % cells == 0:
            return "yolov8"
        case (1, rows, columns) if columns >= 6 and rows == cells and tail <= RAW_OPERATORS:
            return "yolox"
        case (1, rows, columns) if columns >= 6 and rows > columns and not tail <= RAW_OPERATORS:
            return "yolov5"
    shape = ",".join(map(str, model.output_shape))
    raise UnsupportedModel(
        f"unknown head: output {model.graph.outputs[0]} is [{shape}] after "
        f"{', '.join(sorted(tail)) or 'no operators'} at {model.size}x{model.size}, which has "
        f"{cells} cells. Known: [1,N,5+C] (YOLOv5, YOLOv7, YOLOX), [1,4+C,N] (YOLOv8 to 12), "
        f"[1,K,6] (end-to-end); the option head ({'|'.join(HEADS)}) reads it as one of them"
    )


def _class_count(head: HeadName, shape: tuple[int, ...]) -> int | None:
    """How many classes the output has columns for; None where the shape does not show it."""
    if len(shape) != 3 or shape[0] != 1:
        raise BadOption("head", f"{head} needs an output [1,a,b], the model's is {list(shape)}")
    count = {"yolov5": shape[2] - 5, "yolox": shape[2] - 5, "yolov8": shape[1] - 4}.get(head)
    if count is not None and count < 1:
        raise BadOption("head", f"{head} leaves no column for a class in {list(shape)}")
    if head == "end2end" and shape[2] != 6:
        raise BadOption("head", f"end2end needs rows of 6 numbers, the output is {list(shape)}")
    return count


def _class_names(model: FloatModel, file: Path | None, expected: int | None) -> tuple[str, ...]:
    """From the file, the exporter's metadata, or COCO's 80, in that order."""
    if file is not None:
        names, source = _names_in(file), str(file)
    elif "names" in model.metadata:
        names, source = _names_in_metadata(model.metadata["names"]), "the model's metadata"
    else:
        names, source = COCO_NAMES, "COCO"
    if expected is not None and len(names) != expected:
        raise BadOption(
            "classes",
            f"must be a file with {expected} names, one on each line: the model has {expected} "
            f"classes, {source} names {len(names)}",
        )
    return names


def _names_in(file: Path) -> tuple[str, ...]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise BadOption("classes", f"{file}: cannot be read as text") from exc
    names = tuple(line.strip() for line in lines if line.strip())
    if not names:
        raise BadOption("classes", f"{file}: contains no name")
    return names


def _names_in_metadata(text: str) -> tuple[str, ...]:
    """Ultralytics writes a Python dict or list of names."""
    try:
        value = ast.literal_eval(text)
        names = [value[key] for key in sorted(value)] if isinstance(value, dict) else list(value)
    except (ValueError, SyntaxError, TypeError) as exc:
        raise UnsupportedModel(f"the metadata's class names are unreadable: {text[:60]}") from exc
    return tuple(map(str, names))


def _refuse_other_tasks(model: FloatModel) -> None:
    task = model.metadata.get("task", "detect")
    if task != "detect":
        raise UnsupportedModel(f"this is a {task} model; only detectors are served")
