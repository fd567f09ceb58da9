"""The whole method, top to bottom."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import onnx

from quantizer.calibration.images import FEW_IMAGES, Images, find_images, split
from quantizer.calibration.statistics import observe
from quantizer.compile.builder import Builder, Built, Candidate, Resources
from quantizer.compile.candidates import LOW_NAMES, candidates_for, keep_fastest, time_interleaved
from quantizer.compile.hardware import detect
from quantizer.compile.runtime import choose_runtime, load_builder
from quantizer.config import BuildConfig
from quantizer.errors import BadOption
from quantizer.evaluation.accuracy import Accuracy, evaluate_variants
from quantizer.evaluation.accuracy_gate import GateResult, judge
from quantizer.int8 import Range, Scheme, WeightScheme
from quantizer.model.float_model import FloatModel, read_float_model
from quantizer.model.graph import Graph
from quantizer.model.layout import Layout, recognise
from quantizer.qdq.bias import averaged_tensors
from quantizer.qdq.placement import asked_for, plan_placement
from quantizer.qdq.quantize import Ranges
from quantizer.qdq.weights import Weights
from quantizer.report.data import (
    AgreementReport,
    CalibrationReport,
    LayerReport,
    ModelReport,
    OptionsReport,
    Report,
    guard_report,
    int8_convolutions,
    layer_reports,
    sensitivity_report,
    tensor_reports,
)
from quantizer.report.page import Seen, most_telling, render
from quantizer.sensitivity.decision import decide
from quantizer.sensitivity.simulation import (
    MOST_LOOKED_AT,
    SensitivitySample,
    Simulation,
    find_samples,
)
from quantizer.versions import sha256_of, versions
from service.engines.cpu import usable_threads
from service.inference.detector import Detector
from service.inference.variants import AUTO
from service.manifest import DEVICE_OF, PAGE, QDQ, REPORT, Manifest, Precision, write_manifest
from service.progress import Progress, ReportProgress
from service.vision.agreement import Agreement, agreement
from service.vision.detections import Detections
from service.vision.heads import HEADS
from service.vision.image import Photo
from service.vision.postprocess import Query
from service.vision.preprocess import PREPROCESS


def build(config: BuildConfig, folder: Path, progress: ReportProgress) -> Report:
    """Quantize and compile `recipe.model` into the empty `folder`, a model folder afterwards.

    Raises QuantizerError for what the user can mend, ServiceError when a runtime is missing.
    """
    clock = Clock()
    threads = config.threads or usable_threads()
    runtime = choose_runtime(config.device, config.runtime, detect()).runtime
    resources = Resources(config.workspace_mib, config.timing_caches)
    builder = load_builder(runtime, threads, resources, progress)
    qdq_format = builder.qdq_format
    _check_default(config, builder)

    progress(Progress("read"))
    with clock.lap("read"):
        model = read_float_model(config.model, config.size)
        layout = recognise(model, config.head, config.preprocess, config.classes)
        graph = model.graph
        asked = asked_for(graph, config.keep_float)
        whole = plan_placement(graph, asked, qdq_format)

    calibrating, held_out = split(find_images(config.calibration))
    images = Images(calibrating)
    with clock.lap("calibrate"):
        stream = images.usable(config.size, PREPROCESS[layout.preprocess], progress)
        averaged = averaged_tensors(graph, whole) if config.bias_correction else ()
        observed = observe(graph, whole.tensors, stream, threads, averaged)
    calibration = _calibration_report(config, images, len(held_out), clock)

    scheme = Scheme(config.symmetric or qdq_format.symmetric, half=qdq_format.half_scales)
    image_range = Range(0.0, 255 / PREPROCESS[layout.preprocess].divisor)
    ranges = Ranges(graph, observed.histograms, config.ranges, scheme, image_range)
    means = observed.channel_means if config.bias_correction else None
    progress(Progress("precision"))
    with clock.lap("precision"):
        samples = _probes(graph, layout, config, calibrating, threads)
        head = HEADS[layout.head]
        weights = Weights(graph, WeightScheme(half=qdq_format.half_scales))
        simulation = Simulation(graph, ranges, weights, means, head, config.size, samples, threads)
        decision = decide(simulation, asked, builder, config.min_sqnr, progress)
        placement = decision.placement

    progress(Progress("quantize"))
    with clock.lap("quantize"):
        quantized = simulation.quantized(placement)
        onnx.checker.check_model(quantized.model, full_check=True)
        onnx.save(quantized.model, folder / QDQ)

    divisor = PREPROCESS[layout.preprocess].divisor
    candidates = candidates_for(model.model, quantized.model, builder.low_float, divisor)
    compiled = _compile(builder, candidates, folder, clock, progress)
    with clock.lap("time"):
        progress(Progress("time"))
        image = np.zeros((1, 3, config.size, config.size), np.uint8)
        timed = time_interleaved(compiled, folder, image, threads, divisor)
        built, ms = keep_fastest(candidates, compiled, timed, folder)

    manifest = _manifest(config, model, layout, built)
    with clock.lap("compare"):
        compared = Images(held_out or calibrating)
        agreed, seen = _agreements(folder, manifest, compared, threads, progress)
        accuracies = _accuracies(config, folder, manifest, threads, progress)
    verdicts = judge(agreed, accuracies, config.max_drop)
    manifest = _guarded(manifest, verdicts, ms, config.default)

    layers = layer_reports(placement, built)
    report = Report(
        model=_model_report(manifest, model),
        options=OptionsReport(
            config.ranges,
            scheme.symmetric,
            config.bias_correction,
            config.keep_float,
            config.min_sqnr,
            runtime,
            threads,
        ),
        calibration=calibration,
        int8_convolutions=int8_convolutions(layers),
        sensitivity=sensitivity_report(decision.sensitivity, config.min_sqnr),
        agreement=AgreementReport(bool(held_out), agreed),
        guard=guard_report(verdicts, accuracies),
        bytes={name: part.bytes for name, part in built.items()},
        default=manifest.default,
        ms=ms,
        seconds=clock.seconds,
        versions=manifest.versions,
        warnings=_warnings(
            calibration, layers, config.keep_float, bool(samples), manifest.rejected
        ),
        layers=layers,
        engine_layers={name: part.layers for name, part in built.items() if part.layers},
        tensors=tensor_reports(placement, observed.histograms, quantized.ranges, scheme),
    )
    (folder / REPORT).write_text(report.to_json())
    page = render(report, observed.histograms, quantized.ranges, seen, manifest.class_name)
    (folder / PAGE).write_text(page, "utf-8")
    write_manifest(folder, manifest)
    return report


def _check_default(config: BuildConfig, builder: Builder) -> None:
    low = LOW_NAMES[builder.low_float] if builder.low_float else None
    if config.default not in (AUTO, "fp32", "int8", low):
        raise BadOption("default", f"{config.default}: this processor or its runtime lacks it")


@dataclass(frozen=True, slots=True)
class Clock:
    """Wall seconds by the name of the step."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def lap(self, name: str) -> Iterator[None]:
        """Time a block."""
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 3)


def _probes(
    graph: Graph, layout: Layout, config: BuildConfig, paths: list[Path], threads: int
) -> list[SensitivitySample]:
    """A few of the images, spread over all of them, with what the float model says of them."""
    spread = Images(paths[:: max(1, len(paths) // MOST_LOOKED_AT)])
    tensors = spread.usable(config.size, PREPROCESS[layout.preprocess], lambda _: None)
    return find_samples(graph, HEADS[layout.head], config.size, tensors, threads)


def _calibration_report(
    config: BuildConfig, images: Images, held_out: int, clock: Clock
) -> CalibrationReport:
    return CalibrationReport(
        images=images.count_usable(config.calibration),
        held_out=held_out,
        unreadable=tuple(path.name for path in images.unreadable),
        ms_per_image=round(clock.seconds["calibrate"] / len(images.paths) * 1000, 2),
    )


def _compile(
    builder: Builder,
    candidates: list[Candidate],
    folder: Path,
    clock: Clock,
    progress: ReportProgress,
) -> dict[str, Built]:
    """Every candidate's engine, by the name of its folder."""
    built = {}
    progress(Progress("compile", 0, len(candidates)))
    for done, candidate in enumerate(candidates, start=1):
        with clock.lap(f"compile {candidate.name}"):
            built[candidate.name] = builder.build(candidate, folder)
        progress(Progress("compile", done, len(candidates)))
    return built


def _manifest(
    config: BuildConfig, model: FloatModel, layout: Layout, built: Mapping[Precision, Built]
) -> Manifest:
    graph = model.graph
    return Manifest(
        name=config.model.stem,
        device=DEVICE_OF[built["fp32"].variant.runtime],
        size=config.size,
        head=layout.head,
        preprocess=layout.preprocess,
        class_names=layout.class_names,
        input_name=graph.input,
        output_name=graph.outputs[0],
        output_shape=model.output_shape,
        default="fp32",
        variants={name: part.variant for name, part in built.items()},
        source_sha256=sha256_of(config.model),
        versions=versions(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _agreements(
    folder: Path, manifest: Manifest, images: Images, threads: int, progress: ReportProgress
) -> tuple[dict[str, Agreement], list[Seen]]:
    """Every variant's boxes against fp32's at the serving thresholds, by the engines just made.

    Also the images with the most boxes and what fp32 and int8 saw in them.
    """
    detectors = {name: Detector.load(folder, manifest, name, threads) for name in manifest.variants}
    reference = detectors.pop("fp32")
    pairs: dict[str, list[tuple[Detections, Detections]]] = {name: [] for name in detectors}
    seen: list[Seen] = []
    query, total = Query(), len(images.paths)
    progress(Progress("compare", 0, total))
    for done, (path, image) in enumerate(zip(images.paths, images.pixels(), strict=True), start=1):
        if image is not None:
            photo = Photo.from_pixels(image)
            expected = reference.detect(photo, query)
            for name, detector in detectors.items():
                pairs[name].append((expected, detector.detect(photo, query)))
            seen = most_telling([*seen, Seen(path.name, image, *pairs["int8"][-1])])
        progress(Progress("compare", done, total))
    for detector in (reference, *detectors.values()):
        detector.close()
    return {name: agreement(found) for name, found in pairs.items()}, seen


def _accuracies(
    config: BuildConfig, folder: Path, manifest: Manifest, threads: int, progress: ReportProgress
) -> Mapping[str, Accuracy] | None:
    """Every variant's AP, where the recipe names annotated images."""
    if config.annotated is None:
        return None
    images, annotations = config.annotated.images, config.annotated.annotations
    return evaluate_variants(folder, manifest, images, annotations, threads, progress).variants


def _guarded(
    manifest: Manifest,
    verdicts: Mapping[str, GateResult],
    ms: Mapping[Precision, float],
    wanted: str,
) -> Manifest:
    """The manifest whose default is what was wanted, or the fastest, of what was accepted."""
    rejected = {name: verdict.reason for name, verdict in verdicts.items() if not verdict.accepted}
    accepted = [name for name in ms if name not in rejected]
    default = wanted if wanted in accepted else min(accepted, key=ms.__getitem__)
    return manifest.model_copy(update={"rejected": rejected, "default": default})


def _model_report(manifest: Manifest, model: FloatModel) -> ModelReport:
    return ModelReport(
        name=manifest.name,
        sha256=manifest.source_sha256,
        head=manifest.head,
        preprocess=manifest.preprocess,
        size=manifest.size,
        classes=len(manifest.class_names),
        output=model.output_shape,
    )


def _warnings(
    calibration: CalibrationReport,
    layers: tuple[LayerReport, ...],
    keep_float: tuple[str, ...],
    probed: bool,
    rejected: Mapping[str, str],
) -> tuple[str, ...]:
    found = [
        f"keep_float {pattern} matches no convolution"
        for pattern in keep_float
        if not any(fnmatchcase(layer.layer, pattern) for layer in layers)
    ]
    if calibration.images < FEW_IMAGES:
        found.append(
            f"only {calibration.images} usable calibration images: below {FEW_IMAGES} the ranges "
            "depend on chance; use at least 100 like those the detector will see"
        )
    if not probed:
        found.append(
            "the float model sees nothing in the calibration images, so no layer could be tried: "
            "every layer is quantized"
        )
    found += [
        f"{name} is not the default: {reason}; it is served to requests that name it"
        for name, reason in rejected.items()
    ]
    if calibration.unreadable:
        found.append(f"{len(calibration.unreadable)} images could not be decoded and were skipped")
    counts = int8_convolutions(layers)
    if counts.executed < counts.planned:
        found.append(
            f"{counts.planned - counts.executed} of {counts.planned} quantized convolutions do not "
            "run in int8 here: see layers in the report"
        )
    if counts.planned == 0:
        found.append("no convolution is quantized: int8 is the float model")
    return tuple(found)
