"""The cache key of a build: a digest of everything that the build depends on."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

from quantizer.calibration.images import find_images
from quantizer.compile.accelerator import choose_accelerator
from quantizer.compile.hardware import Hardware, Installed, detect
from quantizer.compile.runtime import choose_runtime
from quantizer.config import BuildConfig
from quantizer.errors import BadOption
from quantizer.model.files import onnx_files, require_onnx
from quantizer.versions import sha256_of, source_digest, versions
from service.engines.cpu import cpu_fingerprint
from service.engines.gpu import Gpu
from service.folder_cache import KEY_LENGTH
from service.manifest import DEVICE_OF


def build_key(config: BuildConfig, hardware: Hardware | None = None) -> str:
    """A digest of everything that a build depends on, and of nothing else.

    It covers the model's bytes with its external data, the calibration images' bytes, the options,
    the runtime chosen here, the versions of the packages and of this code, the processor, and the
    GPU if the build is for one. Paths, times and the thread count are left out, and so is this
    machine where the build is for a GPU elsewhere.

    Raises UnsupportedModel, NoCalibrationImages or BadOption where a file or folder is missing.
    """
    require_onnx(config.model)
    options = asdict(config)
    for field in ("model", "calibration", "classes", "annotated", "threads", "timing_caches"):
        del options[field]
    del options["device"], options["runtime"]  # the runtime that they choose is in "engine"
    facts = {
        "name": config.model.stem,
        "model": [sha256_of(path) for path in onnx_files(config.model)],
        "images": sorted(sha256_of(path) for path in find_images(config.calibration)),
        "classes": _digest_of("classes", config.classes),
        "annotated": _annotated_of(config),
        "options": options,
        "engine": _engine(config, hardware or detect()),
        "versions": versions(),
        "code": source_digest(),
        "cpu": "" if config.target else cpu_fingerprint(),
    }
    text = json.dumps(facts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]


def _engine(config: BuildConfig, hardware: Hardware) -> list[str]:
    """The runtime that compiles the engines, its version, and the GPU that it compiles for."""
    runtime = choose_runtime(config.device, config.runtime, hardware, config.target).runtime
    state, gpu = hardware.runtimes[runtime], hardware.gpu
    facts: list[str] = [runtime]
    if isinstance(state, Installed):
        facts.append(state.version)
    if isinstance(gpu, Gpu) and DEVICE_OF[runtime] == "gpu" and not config.target:
        facts.append(gpu.fingerprint)
    if choose_accelerator(config, runtime) is not None:
        from service.engines.openvino_engine import blob_key

        facts.append(blob_key(str(config.accelerator)))
    return facts


def _annotated_of(config: BuildConfig) -> list[str | None]:
    """Digests of the annotations and of the images beside them."""
    if config.annotated is None:
        return []
    images = [sha256_of(path) for path in find_images(config.annotated.images)]
    return [_digest_of("annotations", config.annotated.annotations), *sorted(images)]


def _digest_of(field: str, path: Path | None) -> str | None:
    if path is None:
        return None
    if not path.is_file():
        raise BadOption(field, f"{path}: no such file")
    return sha256_of(path)
