"""The files of a model folder, its manifest, and the check that no file changed.

manifest.json        the Manifest below
checksums.sha256     SHA-256 of every other file, in the format of `sha256sum -c`
report.json          the build's measurements
report.html          the measurements as a page
model.qdq.onnx       the quantized graph
<variant>/           the engine's files
local/               what a machine that serves the folder adds; not covered by the checksums
"""

import hashlib
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    ValidationError,
    model_validator,
)

from service.errors import BadModelFolder
from service.vision.heads import HeadName
from service.vision.input_size import InputSize
from service.vision.maps import MapLayout
from service.vision.preprocess import PreprocessName
from service.vision.projections import Projections, read_projections

log = logging.getLogger(__name__)

MANIFEST: Final = "manifest.json"
CHECKSUMS: Final = "checksums.sha256"
REPORT: Final = "report.json"
PAGE: Final = "report.html"
QDQ: Final = "model.qdq.onnx"
LOCAL: Final = "local"

Runtime = Literal["openvino", "onnxruntime", "onnxruntime-cuda", "tensorrt", "tensorrt-rtx"]
Precision = Literal["fp32", "bf16", "fp16", "fp8", "int8"]
FloatType = Literal["f32", "bf16", "f16"]
Size = Annotated[
    InputSize, BeforeValidator(InputSize.of), PlainSerializer(lambda size: size.written)
]

DEVICE_OF: Final[Mapping[Runtime, Literal["cpu", "gpu"]]] = {
    "openvino": "cpu",
    "onnxruntime": "cpu",
    "onnxruntime-cuda": "gpu",
    "tensorrt": "gpu",
    "tensorrt-rtx": "gpu",
}


class Variant(BaseModel):
    """One engine; paths are relative to the folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    runtime: Runtime
    precision: Precision
    float_type: FloatType = "f32"  # of the operations that are not int8
    device: str | None = None  # OpenVINO's name of it, as GPU; None: the runtime's own device
    model: str
    raw: str | None = None  # the exporter's graph; `model` then reads bytes and may end at its maps
    # TensorRT: the plans of `raw` lie beside it, by the names of those of `model`.
    blob: str | None = None  # the compiled `model`
    blob_key: str | None = None  # the runtime version and processor that can load the blob
    plans: dict[str, str] = {}  # TensorRT for RTX: a blob for each compute capability, as sm89
    projections: str | None = None  # the convolutions that `model` leaves to the server


class Manifest(BaseModel):
    """The contents of manifest.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    name: str
    device: Literal["cpu", "gpu"]
    size: Size  # a number for a square, otherwise text as "640x384"
    head: HeadName
    preprocess: PreprocessName
    class_names: tuple[str, ...]
    input_name: str = "images"  # the exporter's names, for clients that send tensors
    output_name: str = "output0"
    output_shape: tuple[int, ...] | None = None  # None: written by an older build
    maps: MapLayout | None = None  # how the outputs of variants with a `raw` graph are read
    default: str  # the variant of requests that name none
    variants: dict[str, Variant]
    rejected: dict[str, str] = {}  # variant -> why it failed the accuracy gate
    timed: bool = True  # False: built for a GPU elsewhere, where the first start times the variants
    source_sha256: str
    versions: dict[str, str]
    created: str  # UTC, ISO 8601

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.default not in self.variants:
            raise ValueError(f"the default {self.default!r} is not among the variants")
        if self.name == ".." or Path(self.name).name != self.name:  # collected images go there
            raise ValueError(f"the name {self.name!r} is no name of a file")
        for variant in self.variants.values():
            files = (variant.model, variant.raw, variant.projections, variant.blob)
            for path in (*files, *variant.plans.values()):
                if path is not None and (Path(path).is_absolute() or ".." in Path(path).parts):
                    raise ValueError(f"{path!r} leaves the folder")
        return self

    def maps_of(self, variant: str) -> MapLayout | None:
        """How the outputs of a variant are read; None: they are the model's own."""
        return self.maps if self.variants[variant].raw is not None else None

    def device_of(self, variant: str) -> str:
        """Where a variant runs: cpu, gpu, or OpenVINO's name of another device in small letters."""
        device = self.variants[variant].device
        return self.device if device is None else device.lower()

    def without(self, variant: str) -> Self:
        """The same without a variant of another device than the processor.

        If it was the default, the processor's variant of the same precision takes its place; then
        int8, then fp32; one that the accuracy gate rejected does not.
        """
        rest = {name: each for name, each in self.variants.items() if name != variant}
        default = self.default
        if default == variant:
            names = (self.variants[variant].precision, "int8", "fp32")
            default = next(name for name in names if name in rest and name not in self.rejected)
        return self.model_copy(update={"variants": rest, "default": default})

    def class_name(self, class_id: int) -> str:
        """Its name, or "class N": end-to-end heads may have more classes than names."""
        names = self.class_names
        return names[class_id] if 0 <= class_id < len(names) else f"class {class_id}"


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write manifest.json, then the checksums of every file in the folder."""
    (folder / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", "utf-8")
    lines = [f"{_sha256(folder / name)}  {name}\n" for name in _files(folder)]
    (folder / CHECKSUMS).write_text("".join(lines), "utf-8")


def read_manifest(folder: Path) -> Manifest:
    """Verify the checksums and read the manifest; raises BadModelFolder."""
    verify(folder)
    try:
        return Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except ValidationError as exc:
        first = exc.errors()[0]
        where = ".".join(map(str, first["loc"])) or "manifest"
        raise BadModelFolder(f"{folder / MANIFEST}: {where}: {first['msg']}") from exc


def verify(folder: Path) -> None:
    """Raise BadModelFolder unless the folder holds exactly the files that the build wrote."""
    try:
        text = (folder / CHECKSUMS).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise BadModelFolder(f"{folder} is not a model folder: no readable {CHECKSUMS}") from exc
    expected = {}
    for line in text.split("\n")[:-1]:
        match = re.fullmatch(r"([0-9a-f]{64})  (.+)", line)
        if match is None:
            raise BadModelFolder(f"{folder / CHECKSUMS} is corrupt")
        expected[match[2]] = match[1]
    present = set(_files(folder))
    for name, digest in expected.items():
        if name not in present:
            raise BadModelFolder(f"{folder} is incomplete: {name} is missing")
        if _sha256(folder / name) != digest:
            raise BadModelFolder(f"{folder} is corrupt: {name} has changed")
    if MANIFEST not in expected:
        raise BadModelFolder(f"{folder} is not a model folder: no {MANIFEST}")
    if extra := sorted(present - set(expected)):
        raise BadModelFolder(f"{folder} holds {extra[0]}, which the build did not write")


def projections_of(folder: Path, variant: Variant) -> Projections:
    """The convolutions that the graph of a variant leaves to the server; raises BadModelFolder."""
    return {} if variant.projections is None else read_projections(folder / variant.projections)


def read_local(folder: Path, name: str) -> bytes:
    """What this machine has added to the folder under a name; empty if nothing."""
    path = folder / LOCAL / name
    return path.read_bytes() if path.is_file() else b""


def write_local(folder: Path, name: str, content: bytes) -> None:
    """Add or replace a file of this machine's; a folder that cannot be written stays as it is."""
    path = folder / LOCAL / name
    fresh = path.with_name(f"{name}.{os.getpid()}.new")
    try:
        path.parent.mkdir(exist_ok=True)
        fresh.write_bytes(content)
        fresh.replace(path)
    except OSError as exc:
        log.info("%s is not kept: %s", path, exc)


def _files(folder: Path) -> list[str]:
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != CHECKSUMS)
    names = (path.relative_to(folder) for path in paths)
    return sorted(name.as_posix() for name in names if name.parts[0] != LOCAL)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
