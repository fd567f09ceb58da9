"""The build, top to bottom: each stage takes frozen values and returns new ones.

read -> equalise -> calibrate -> round -> decide -> quantize -> compile and time -> judge -> publish

Which variant is the default is decided in `quantizer.evaluation.accuracy_gate`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np
import onnx

from quantizer.calibration import statistics
from quantizer.calibration.activation_statistics import input_statistics
from quantizer.calibration.analytic_bounds import lower_bounds
from quantizer.calibration.channels import measure_channels
from quantizer.calibration.images import (
    ImageFiles,
    chosen_size,
    evenly_spread,
    find_images,
    hold_out,
)
from quantizer.calibration.statistics import Calibration
from quantizer.compile.builder import Built, Candidate
from quantizer.compile.candidates import (
    candidates_for,
    candidates_on,
    for_a_gpu_elsewhere,
    keep_fastest,
    time_interleaved,
)
from quantizer.compile.operations import Operation
from quantizer.config import BuildConfig
from quantizer.evaluation.accuracy import evaluate_detectors
from quantizer.evaluation.accuracy_gate import Judgement, choose_default, gate
from quantizer.evaluation.comparison import compare_variants
from quantizer.evaluation.detectors import describe, open_graphs, open_variants
from quantizer.evaluation.device_trial import DeviceTrial, Tried
from quantizer.int8 import Range
from quantizer.job import Job, choose_builder
from quantizer.model.graph import Graph
from quantizer.model.layout import FloatDetector, read_detector
from quantizer.model.map_layout import Maps, Unrecognised
from quantizer.model.serving_graph import ended_at
from quantizer.qdq.bias import averaged_tensors
from quantizer.qdq.equalisation import equalise, find_factors, find_readers
from quantizer.qdq.placement import layers_matching, plan_placement
from quantizer.qdq.quantize import Quantized, Ranges
from quantizer.qdq.rounding import adaptive_rounding
from quantizer.qdq.weights import Weights
from quantizer.report.data import Report
from quantizer.report.findings import Findings
from quantizer.report.page import render
from quantizer.sensitivity import decision
from quantizer.sensitivity.decision import Decision
from quantizer.sensitivity.image_counts import ImageCounts
from quantizer.sensitivity.simulation import (
    SEARCHED_IMAGES,
    SampleSearch,
    SensitivitySample,
    Simulation,
)
from quantizer.sensitivity.sqnr import Reading
from service.inference.variants import AUTO
from service.manifest import PAGE, QDQ, REPORT, Manifest, Variant, write_manifest
from service.progress import Progress, ReportProgress
from service.vision.detections import Floats

# Inputs of an output channel: adaptive rounding takes time with their third power.
LARGEST_PATCH: Final = 512


def build(config: BuildConfig, folder: Path, progress: ReportProgress) -> Report:
    """Quantize and compile `config.model` into the empty `folder`, which becomes a model folder.

    Raises QuantizerError for an unusable input, ServiceError when a runtime is missing.
    """
    builder, accelerator = choose_builder(config, progress)
    job = Job.of(config, builder, folder, progress, accelerator)
    source = read(job)
    graph = equalise_channels(job, source)
    calibration, samples = calibrate(job, source, graph)
    weights = round_weights(job, source, graph)
    decided = decide(job, source, graph, calibration, weights, samples)
    quantized = quantize(job, decided)
    engines = compile_and_time(job, source, quantized)
    variants: dict[str, Variant] = {name: part.variant for name, part in engines.built.items()}
    manifest = describe(config.model, source.detector, variants, source.maps)
    judged = judge(job, source, manifest)
    findings = Findings(
        job=job,
        held_out=len(source.held_out),
        assumptions=source.detector.assumptions,
        uncut=source.uncut,
        calibration=calibration,
        decision=decided.decision,
        quantized=quantized,
        built=engines.built,
        ms=engines.ms,
        operations=engines.operations,
        dropped=engines.dropped,
        judgement=judged,
        manifest=with_default(manifest, judged, engines, config),
    )
    return publish(findings)


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """The float detector, the layers to keep float with the reasons, and the images."""

    detector: FloatDetector
    maps: Maps | None  # at which the served graph ends
    uncut: str  # why it does not
    keep_float: Mapping[str, str]
    counts: ImageCounts
    calibrating: Sequence[Path]
    held_out: Sequence[Path]

    def step(self, count: int) -> int:
        """Every how many-th calibration image makes about `count` of them, evenly spread."""
        return max(1, len(self.calibrating) // count)

    def spread(self, count: int) -> Iterator[Floats]:
        """The tensors of about `count` calibration images."""
        paths = self.calibrating[:: self.step(count)]
        return ImageFiles(paths, self.detector.size, self.detector.preprocess).decodable()


@dataclass(frozen=True, slots=True, eq=False)
class Decided:
    """Which layers run in int8, and the simulation that quantizes any set of them."""

    simulation: Simulation
    decision: Decision


@dataclass(frozen=True, slots=True)
class Engines:
    """The engine of each variant, the median milliseconds of one inference, and the operations
    of the processor's int8 engine.

    Nothing is timed where the engines are for a GPU elsewhere.
    """

    built: Mapping[str, Built]
    ms: Mapping[str, float]
    operations: tuple[Operation, ...] = ()
    dropped: Mapping[str, str] = field(default_factory=dict)  # candidates of a device, and why


def read(job: Job) -> Source:
    """Read the model, recognise its layout, and find the images."""
    config, paths = job.config, find_images(job.config.calibration)
    with job.stage("read"):
        size = chosen_size(config.size, paths)
        detector = read_detector(config.model, size, config.head, config.preprocess, config.classes)
        keep_float = layers_matching(detector.graph, config.keep_float)
    counts = ImageCounts.of(detector.graph)
    calibrating, held_out = hold_out(paths)
    if counts.calibrated:
        calibrating = evenly_spread(calibrating, counts.calibrated)
    images = (keep_float, counts, calibrating, held_out)
    if isinstance(detector.maps, Unrecognised):
        return Source(detector, None, detector.maps.reason, *images)
    return Source(detector, detector.maps, "", *images)


def equalise_channels(job: Job, source: Source) -> Graph:
    """The graph to quantize: it computes what the detector's does."""
    graph = source.detector.graph
    if not job.config.equalisation:
        return graph
    with job.stage("equalise"):
        placement = plan_placement(graph, source.keep_float, job.builder.qdq_format)
        readers = find_readers(graph, placement)
        images = source.spread(source.counts.equalised)
        channels = measure_channels(graph, list(readers), images, job.config.threads)
        return equalise(graph, find_factors(readers, channels, lower_bounds(graph)))


def calibrate(
    job: Job, source: Source, graph: Graph
) -> tuple[Calibration, Sequence[SensitivitySample]]:
    """Collect the statistics of every tensor that could be quantized, and what is detected."""
    config, detector = job.config, source.detector
    placement = plan_placement(graph, source.keep_float, job.builder.qdq_format)
    averaged = averaged_tensors(graph, placement) if config.bias_correction else ()
    files = ImageFiles(source.calibrating, detector.size, detector.preprocess)
    layout = source.maps.layout if source.maps else None
    reading = Reading.of(detector.head, detector.size, layout)
    search = SampleSearch(reading, source.counts.samples, source.step(SEARCHED_IMAGES))
    with job.timed("calibrate"):
        calibration = statistics.calibrate(
            Graph.of(ended_at(graph.model, source.maps)),
            placement.tensors,
            averaged,
            files,
            config.threads,
            job.progress,
            search.see,
        )
    return calibration, search.samples


def round_weights(job: Job, source: Source, graph: Graph) -> Weights:
    """The weights of every convolution that could be quantized."""
    config, qdq_format = job.config, job.builder.qdq_format
    if not (config.adaptive_rounding and config.bias_correction):
        return Weights(graph, qdq_format.weight_scheme)
    with job.stage("round"):
        placement = plan_placement(graph, source.keep_float, qdq_format)
        layers = [
            site.layer
            for site in placement.weights
            if graph.constant(site.tensor)[0].size <= LARGEST_PATCH
        ]
        images = source.spread(source.counts.rounded)
        inputs = input_statistics(graph, layers, images, config.threads)
        weights = Weights(graph, qdq_format.weight_scheme, adaptive_rounding(inputs))
        for site in placement.weights:
            weights.of(site)
    return weights


def decide(
    job: Job,
    source: Source,
    graph: Graph,
    calibration: Calibration,
    weights: Weights,
    samples: Sequence[SensitivitySample],
) -> Decided:
    """Decide which layers stay float, by their sensitivity and by the time that int8 saves."""
    config, detector, collected = job.config, source.detector, calibration.statistics
    image_range = Range(0.0, 255 / detector.preprocess.divisor)
    with job.stage("precision"):
        simulation = Simulation(
            graph=graph,
            ranges=Ranges(graph, collected.histograms, config.ranges, job.scheme, image_range),
            weights=weights,
            means=collected.channel_means if config.bias_correction else None,
            samples=samples,
            threads=config.threads,
            noise_samples=source.counts.noise_samples,
            maps=source.maps,
        )
        decided = decision.decide(
            simulation,
            source.keep_float,
            job.builder,
            config.min_sqnr,
            job.progress,
            source.counts.refined if config.range_refinement else 0,
        )
    return Decided(replace(simulation, ranges=decided.ranges), decided)


def quantize(job: Job, decided: Decided) -> Quantized:
    """Make the Q/DQ graph of the decision, check it and save it."""
    with job.stage("quantize"):
        quantized = decided.simulation.quantized(decided.decision.placement)
        onnx.checker.check_model(quantized.model, full_check=True)
        onnx.save(quantized.model, job.folder / QDQ)
    return quantized


def compile_and_time(job: Job, source: Source, quantized: Quantized) -> Engines:
    """Compile every engine that runs here, time them, and keep the fastest of each variant."""
    detector, threads = source.detector, job.config.threads
    candidates = candidates_for(
        detector.model,
        quantized.model,
        job.builder.low_float,
        detector.preprocess,
        source.maps,
        job.builder.qdq_format.float8,
    )
    if job.config.target:
        candidates = for_a_gpu_elsewhere(candidates)
    built = {}
    job.progress(Progress("compile", 0, len(candidates)))
    for done, candidate in enumerate(candidates, start=1):
        with job.timed(f"compile {candidate.name}"):
            built[candidate.name] = job.builder.build(candidate, job.folder)
        job.progress(Progress("compile", done, len(candidates)))
    if job.config.target:
        return Engines({each.variant: built[each.name] for each in candidates}, {})
    on_device = [] if job.accelerator is None else candidates_on(job.accelerator, candidates)
    tried = try_on_device(job, source, on_device, built["fp32"])
    built |= tried.built
    candidates += [each for each in on_device if each.name in built]
    image = np.zeros((1, detector.size.height, detector.size.width, 3), np.uint8)
    with job.stage("time"):
        ms = time_interleaved(built, job.folder, image, threads, detector.preprocess)
        kept, kept_ms = keep_fastest(candidates, built, ms, job.folder)
        operations = job.builder.operations(kept["int8"].variant, job.folder)
    return Engines(kept, kept_ms, operations, tried.dropped)


def try_on_device(job: Job, source: Source, candidates: list[Candidate], fp32: Built) -> Tried:
    """Compile for the device beside the processor, and keep what finds fp32's boxes there."""
    if not candidates:
        return Tried()
    config = job.config
    trial = DeviceTrial(
        folder=job.folder,
        manifest=describe(config.model, source.detector, {"fp32": fp32.variant}, source.maps),
        images=source.held_out or source.calibrating,
        threads=config.threads,
        max_drop=None if config.annotated else config.max_drop,
    )
    with job.timed("try"):
        return trial.run(job.builder, candidates, job.progress)


def judge(job: Job, source: Source, manifest: Manifest) -> Judgement:
    """Compare every variant with fp32 on held-out images and, if given, on annotated ones."""
    images, annotated = source.held_out or source.calibrating, job.config.annotated
    open_detectors = open_graphs if job.config.target else open_variants
    ap = None
    with (
        job.timed("compare"),
        open_detectors(job.folder, manifest, job.config.threads) as detectors,
    ):
        comparison = compare_variants(detectors, images, job.progress)
        if annotated is not None:
            evaluation = evaluate_detectors(detectors, manifest, annotated, job.progress)
            ap = {name: accuracy.ap for name, accuracy in evaluation.variants.items()}
    return Judgement(comparison, ap, gate(comparison.agreements, ap, job.config.max_drop))


def with_default(
    manifest: Manifest, judged: Judgement, engines: Engines, config: BuildConfig
) -> Manifest:
    """The manifest with the rejected variants and the default that the accuracy gate chooses."""
    chosen = {
        "rejected": judged.rejected,
        "default": choose_default(judged.results, engines.ms, config.default, manifest.variants),
        "timed": bool(engines.ms) or config.default != AUTO,
    }
    return Manifest(**(dict(manifest) | chosen))


def publish(findings: Findings) -> Report:
    """Write the report, the page and, last, the manifest with the checksums."""
    report, folder = Report.of(findings), findings.job.folder
    (folder / REPORT).write_text(report.to_json())
    (folder / PAGE).write_text(render(report, findings), "utf-8")
    write_manifest(folder, findings.manifest)
    return report
