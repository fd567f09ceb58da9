"""The command line's arguments and options, each defined once."""

import os
from pathlib import Path
from typing import Annotated

import typer

from quantizer.calibration.ranges import RangeRule
from quantizer.config import Default, Device
from quantizer.errors import BadOption
from service.manifest import Runtime
from service.vision.heads import HeadName
from service.vision.preprocess import PreprocessName


def cache_root() -> Path:
    """QYOLO_CACHE_DIR, or qyolo under the user's cache directory (XDG)."""
    chosen = os.environ.get("QYOLO_CACHE_DIR")
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "qyolo"


def message(exc: Exception) -> str:
    """An error's text on the terminal: a field of the configuration is named by its flag."""
    if isinstance(exc, BadOption):
        return f"--{exc.field.replace('_', '-')} {exc.reason}"
    return str(exc)


BUILD, SERVE, CLUSTER = "Build", "Server", "Cluster"

Model = Annotated[
    str,
    typer.Argument(
        help="Float YOLO detector: an .onnx file as its official exporter wrote it, or a name that "
        "`qyolo models` lists."
    ),
]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust-on-first-use",
        help="Take a catalogue model whose checksum is not known, and hold it to what came.",
        rich_help_panel=BUILD,
    ),
]
OfVariant = Annotated[
    str | None, typer.Option(help="fp32, bf16, fp16 or int8; default: the folder's own choice.")
]
Folder = Annotated[Path, typer.Argument(help="Model folder that `qyolo build` wrote.")]
Calibration = Annotated[
    Path | None,
    typer.Option(
        help="Folder of images like those the detector will see, about 100; default: pictures that "
        "come with qyolo.",
        rich_help_panel=BUILD,
    ),
]
Size = Annotated[
    int, typer.Option(min=32, max=4096, help="Input side in pixels.", rich_help_panel=BUILD)
]
Ranges = Annotated[
    RangeRule,
    typer.Option(help="How activation ranges are chosen; uh is Q-YOLO's.", rich_help_panel=BUILD),
]
Symmetric = Annotated[
    bool,
    typer.Option(
        "--symmetric", help="Symmetric int8 activations, not uint8.", rich_help_panel=BUILD
    ),
]
BiasCorrection = Annotated[
    bool,
    typer.Option(
        help="Shift biases by what rounding the weights does to each channel's mean.",
        rich_help_panel=BUILD,
    ),
]
Head = Annotated[
    HeadName | None,
    typer.Option(help="Output layout, where it is not recognised.", rich_help_panel=BUILD),
]
HowPrepared = Annotated[
    PreprocessName | None,
    typer.Option(
        "--preprocess",
        help="yolo: RGB 0..1, padded around; yolox: BGR 0..255, padded bottom right.",
        rich_help_panel=BUILD,
    ),
]
Classes = Annotated[
    Path | None,
    typer.Option(help="File with one class name on each line.", rich_help_panel=BUILD),
]
KeepFloat = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PATTERN",
        help="Layers to leave float, as a shell pattern of their names; repeatable.",
        rich_help_panel=BUILD,
    ),
]
MinSqnr = Annotated[
    float,
    typer.Option(
        min=0,
        max=120,
        metavar="DB",
        help="Signal-to-quantization-noise ratio that the detector's outputs must keep; the layers "
        "that hurt it most for their time stay float. 0 quantizes every layer.",
        rich_help_panel=BUILD,
    ),
]
MaxDrop = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=1,
        help="How far int8 may fall behind fp32 and still be the default: of agreement on held-out "
        "images (0.15), or of AP where --annotations are given (0.01).",
        rich_help_panel=BUILD,
        show_default=False,
    ),
]
Annotations = Annotated[
    Path | None,
    typer.Option(help="COCO JSON to judge int8 by; needs --images.", rich_help_panel=BUILD),
]
AnnotatedImages = Annotated[
    Path | None,
    typer.Option("--images", help="Folder of the annotated images.", rich_help_panel=BUILD),
]
ServedDefault = Annotated[
    Default,
    typer.Option(
        help="Variant that answers where a request names none; auto: the fastest that the accuracy "
        "guard accepts.",
        rich_help_panel=BUILD,
    ),
]
OnDevice = Annotated[
    Device,
    typer.Option(
        envvar="QYOLO_DEVICE",
        help="What to build for; auto: the GPU if it can be used, else the processor. "
        "`qyolo doctor` tells which and why.",
        rich_help_panel=BUILD,
    ),
]
WithRuntime = Annotated[
    Runtime | None,
    typer.Option(
        help="Engine; default: the first that works here of TensorRT, ONNX Runtime on CUDA, "
        "OpenVINO, ONNX Runtime.",
        rich_help_panel=BUILD,
    ),
]
Workspace = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="MIB",
        help="GPU memory that TensorRT may try kernels in; default: all.",
        rich_help_panel=BUILD,
        show_default=False,
    ),
]
Rebuild = Annotated[
    bool,
    typer.Option("--rebuild", help="Build even if the cache has a match.", rich_help_panel=BUILD),
]
Threads = Annotated[
    int | None,
    typer.Option(min=0, help="Inference threads; 0: the CPU quota. [env: QYOLO_THREADS]"),
]
Throughput = Annotated[
    bool | None,
    typer.Option(
        "--throughput",
        help="Answer as many images as possible, each on a thread of its own, rather than each as "
        "soon as possible on all threads. [env: QYOLO_THROUGHPUT]",
        rich_help_panel=SERVE,
    ),
]
Host = Annotated[
    str | None,
    typer.Option(
        help="Address to listen on. [env: QYOLO_HOST] [default: 127.0.0.1]", rich_help_panel=SERVE
    ),
]
Port = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=65535,
        help="Port; 0 picks a free one and prints it. [env: QYOLO_PORT] [default: 8000]",
        rich_help_panel=SERVE,
    ),
]
Collect = Annotated[
    Path | None,
    typer.Option(
        help="Folder that keeps a sample of the served images, to calibrate on. "
        "[env: QYOLO_COLLECT]",
        rich_help_panel=SERVE,
    ),
]
Ab = Annotated[
    str | None,
    typer.Option(
        metavar="VARIANT:WEIGHT,...",
        help="Weights of the variants where a request names none, as in int8:0.9,fp32:0.1. "
        "[env: QYOLO_AB]",
        rich_help_panel=SERVE,
    ),
]
Shadow = Annotated[
    str | None,
    typer.Option(
        metavar="VARIANT:SHARE",
        help="Variant that answers a share of the images too, when nobody waits, as in fp32:0.05. "
        "[env: QYOLO_SHADOW]",
        rich_help_panel=SERVE,
    ),
]
Insecure = Annotated[
    bool | None,
    typer.Option(
        "--insecure",
        help="Serve without API keys on an address that others can reach. [env: QYOLO_INSECURE]",
        rich_help_panel=SERVE,
    ),
]
RayAddress = Annotated[
    str, typer.Option(help="Ray cluster; auto: the one that this machine is a node of.")
]
Replicated = Annotated[
    list[str] | None,
    typer.Option(
        "--variant",
        help="Variant to serve beside the default and those of --ab; repeatable.",
        rich_help_panel=CLUSTER,
    ),
]
MinReplicas = Annotated[
    int,
    typer.Option(
        "--min", min=1, help="Replicas of each variant at least.", rich_help_panel=CLUSTER
    ),
]
MaxReplicas = Annotated[
    int | None,
    typer.Option(
        "--max",
        min=1,
        help="Replicas of each variant at most, by the requests under way; default: --min.",
        rich_help_panel=CLUSTER,
    ),
]
Cpus = Annotated[
    float,
    typer.Option(min=0.01, help="CPUs of a replica, and so its threads.", rich_help_panel=CLUSTER),
]
Gpus = Annotated[
    float, typer.Option(min=0, help="GPUs of a replica, or a part of one.", rich_help_panel=CLUSTER)
]
Fronts = Annotated[
    int,
    typer.Option(
        min=1, help="Replicas that answer HTTP and ask the others.", rich_help_panel=CLUSTER
    ),
]
Surge = Annotated[
    int,
    typer.Option(
        min=0,
        max=100,
        metavar="PERCENT",
        help="Replicas that an update starts beside the old ones, for which there must be room; 0 "
        "stops old ones first.",
        rich_help_panel=CLUSTER,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
