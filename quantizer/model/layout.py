"""Which YOLO a model is: its head's layout, its preprocessing and its classes, from the graph."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from quantizer.errors import BadOption, UnsupportedModel, WorksAtOneSize
from quantizer.model.class_names import Names, class_names, given_names
from quantizer.model.coco_names import COCO_NAMES
from quantizer.model.execution import open_session
from quantizer.model.files import EXPORT_COMMANDS
from quantizer.model.float_model import FloatModel, read_float_model
from quantizer.model.forms import FORMS, Form, Output
from quantizer.model.graph import Graph, attributes
from quantizer.model.map_layout import Maps, Unrecognised, recognise_maps
from quantizer.model.outputs import UNCHANGED, Changes, changed
from quantizer.model.resized import resized
from service.vision.detections import Floats
from service.vision.heads import HEADS, Head, HeadName
from service.vision.input_size import InputSize
from service.vision.maps import Level, MapLayout
from service.vision.preprocess import PREPROCESS, Preprocess, PreprocessName

NEAREST: Final = 3  # forms that the message about an unknown layout describes


@dataclass(frozen=True, slots=True)
class Layout:
    """How a model's input is made and how its output is read."""

    head: HeadName
    preprocess: PreprocessName
    class_names: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class FloatDetector(FloatModel):
    """A float model whose layout is known; its output is as its head's decoder reads it."""

    layout: Layout
    maps: Maps | Unrecognised  # before its decode tail

    @property
    def head(self) -> Head:
        return HEADS[self.layout.head]

    @property
    def preprocess(self) -> Preprocess:
        return PREPROCESS[self.layout.preprocess]


def read_detector(
    path: Path,
    size: InputSize | None = None,
    head: HeadName | None = None,
    preprocess: PreprocessName | None = None,
    classes: Path | None = None,
) -> FloatDetector:
    """Read an ONNX file and recognise its layout.

    A model that was exported for another size gets its decode written anew, where that is possible.
    Raises what `read_float_model` and `recognise` raise.
    """
    try:
        return recognise(read_float_model(path, size), head, preprocess, classes)
    except WorksAtOneSize as exc:
        exported = recognise(read_float_model(path, exc.own), head, preprocess, classes)
        detector = _at_size(exported, size) if size is not None else None
        if detector is None:
            raise
        return detector


def _at_size(exported: FloatDetector, size: InputSize) -> FloatDetector | None:
    """The detector of another size; None where its maps are not recognised, or it has no such form.

    The layout of its maps proves that the new decode is that of the exported one.
    """
    if not isinstance(exported.maps, Maps):
        return None
    graph = resized(exported.graph, exported.layout.head, exported.maps, size)
    if isinstance(graph, Exception):
        return None
    maps = recognise_maps(graph, exported.layout.head, size)
    if not isinstance(maps, Maps) or not _same_layout(maps.layout, exported.maps.layout):
        return None
    note = f"its decode, which was exported for {exported.size.text}, is written for {size.text}"
    return FloatDetector(
        graph,
        size,
        exported.metadata,
        exported.layout,
        maps,
        assumptions=(*exported.assumptions, note),
        outputs=exported.outputs,
    )


def _same_layout(a: MapLayout, b: MapLayout) -> bool:
    """Whether both are equal but for the rounding of the anchors, which are read from the tail."""
    return replace(a, levels=_without_anchors(a)) == replace(b, levels=_without_anchors(b)) and all(
        np.allclose(one.anchors, other.anchors, rtol=1e-5)
        for one, other in zip(a.levels, b.levels, strict=True)
    )


def _without_anchors(layout: MapLayout) -> tuple[Level, ...]:
    return tuple(replace(level, anchors=()) for level in layout.levels)


def recognise(
    model: FloatModel,
    head: HeadName | None = None,
    preprocess: PreprocessName | None = None,
    classes: Path | None = None,
) -> FloatDetector:
    """The detector that the graph shows; arguments that are given override it.

    Raises UnsupportedModel for a model of an unknown layout, BadOption for an argument that
    contradicts the model.
    """
    _refuse_other_tasks(model)
    given, output = given_names(model.metadata, classes), Output.of(model)
    read = _read_as(model, output, _possible_forms(output, head), given)
    channels = read.maps.layout.class_count if isinstance(read.maps, Maps) else None
    named = class_names(given, read.form.class_count(output.shape), channels)
    how = preprocess or _preprocess(output, read.form.head, model)
    layout = Layout(read.form.head, how, named.names)
    return FloatDetector(
        read.graph,
        model.size,
        model.metadata,
        layout,
        read.maps,
        assumptions=(*model.assumptions, *read.assumptions, *named.assumptions),
    )


def _possible_forms(output: Output, head: HeadName | None) -> Sequence[Form]:
    """The forms of the output, of this head if one is given, the most likely first."""
    of_head = [form for form in FORMS if head in (None, form.head)]
    possible = [form for form in of_head if not form.missing(output)]
    if possible:  # two outputs are YOLO-NAS's rather than others'
        return sorted(possible, key=lambda form: output.joined and form.head != "yolonas")
    if head is None:
        raise UnsupportedModel(_unknown(output))
    # The option is for what the rules do not recognise: a column for each number is enough.
    readable = [form for form in of_head if not form.contradictions(output)]
    if not readable:
        reason = "; ".join(f"{form.text} {form.contradictions(output)[0]}" for form in of_head)
        raise BadOption("head", f"{head}: {output.text}: {reason}")
    return readable[:1]


@dataclass(frozen=True, slots=True, eq=False)
class _Reading:
    """A model whose output is read in one form."""

    form: Form
    graph: Graph
    maps: Maps | Unrecognised
    assumptions: tuple[str, ...] = ()


def _read_as(
    model: FloatModel, output: Output, forms: Sequence[Form], given: Names | None
) -> _Reading:
    """The first form whose boxes the server can decode from the maps; that proves it.

    Without proof it is the first of those with as many classes as there are names, or as COCO has
    where there are none. Raises UnsupportedModel where some of its classes cannot be classes.
    """
    sample = _sample(model)
    readings = []
    for form in forms:
        reading = _in_form(model, form, sample)
        if isinstance(reading.maps, Maps):
            return reading
        readings.append(reading)
    names = COCO_NAMES if given is None else given.names
    shape = output.shape
    likely = [each for each in readings if each.form.class_count(shape) == len(names)] or readings
    first, *others = [each for each in likely if each.form.fits(sample)] or likely
    if unlike := first.form.columns_unlike_scores(sample):
        raise UnsupportedModel(
            f"{output.text}, whose columns {unlike[0]} to {unlike[-1]} are no scores: this may be "
            f"a model of masks or keypoints; export a detector ({EXPORT_COMMANDS})"
        )
    if not others:
        return first
    alternatives = " or ".join(f"{each.form.text} (--head {each.form.head})" for each in others)
    assumption = f"the output is read as {first.form.text}, but may be {alternatives}"
    return replace(first, assumptions=(*first.assumptions, assumption))


def _in_form(model: FloatModel, form: Form, sample: Floats) -> _Reading:
    """The graph with its output as the decoder of the form's head reads it."""
    scale = model.size if form.in_fractions(sample) else None
    changes = Changes(form.across, form.first_logit(sample), scale)
    graph = model.graph if changes == UNCHANGED else Graph.of(changed(model.graph, changes))
    assumptions = []
    if changes.first_logit is not None:
        assumptions.append("its scores are not in 0..1, so they are read as logits")
    if scale is not None:
        assumptions.append("its boxes are near 0..1, so they are read as fractions of the image")
    maps = recognise_maps(graph, form.head, model.size)
    return _Reading(form, graph, maps, tuple(assumptions))


def _sample(model: FloatModel) -> Floats:
    """The output for an image of noise."""
    shape = model.graph.shapes[model.graph.input]
    noise = np.random.default_rng(0).random(shape, np.float32)
    (output,) = open_session(model.model, 1).run(None, {model.graph.input: noise})
    return np.asarray(output, np.float32)


def _unknown(output: Output) -> str:
    """The outputs, the nearest forms with what each lacks, and what to type next."""
    lacks = {form: " and ".join(form.missing(output)) for form in FORMS}
    readable = {form for form in FORMS if not form.contradictions(output)}
    nearest = sorted(FORMS, key=lambda form: (form not in readable, len(form.missing(output))))
    nearest = nearest[:NEAREST]
    described = "; ".join(
        f"{', '.join(f'{form.text} ({form.name})' for form in nearest if lacks[form] == lack)} "
        f"needs {lack}"
        for lack in dict.fromkeys(lacks[form] for form in nearest)
    )
    heads = dict.fromkeys(form.head for form in nearest if form in readable)
    advice = f"--head {' or '.join(heads)} reads it so; or " if heads else ""
    return (
        f"unknown head: {output.text}. Nearest: {described}. Next: {advice}export it with "
        f"its decode and without NMS ({EXPORT_COMMANDS})"
    )


def _preprocess(output: Output, head: HeadName, model: FloatModel) -> PreprocessName:
    """YOLOX's, or that of all others.

    Of the anchor-free heads with an objectness, only YOLOX decodes with Exp, or not at all; so does
    the first release of YOLOv6, whose stem is a 3x3 convolution of stride 2.
    """
    stems = model.graph.consumers.get(model.graph.input, ())
    is_yolov6 = any(
        node.op_type == "Conv"
        and attributes(node, "kernel_shape") == (3, 3)
        and attributes(node, "strides") == (2, 2)
        for node in stems
    )
    is_yolox = head == "yolox" or (head == "yolov5" and "Exp" in output.tail and not is_yolov6)
    return "yolox" if is_yolox else "yolo"


def _refuse_other_tasks(model: FloatModel) -> None:
    task = model.metadata.get("task", "detect")
    if task != "detect":
        raise UnsupportedModel(
            f"this is a {task} model; only detectors are served: export one that was trained with "
            "task=detect"
        )
