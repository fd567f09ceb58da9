"""Build a served folder again, of its float model and on other images."""

import json
from pathlib import Path
from typing import Final, get_args

from quantizer.config import BuildConfig, Default
from quantizer.versions import sha256_of
from qyolo.user_cache import cache_root
from service.errors import ModelUnavailable
from service.inference.models import Model
from service.manifest import REPORT, Manifest

# The fields of report.json's options that are those of a build.
KEPT: Final = (
    *("ranges", "symmetric", "bias_correction", "adaptive_rounding", "equalisation"),
    *("keep_float", "min_sqnr", "runtime", "target"),
)


def config_again(model: Model, file: Path, images: Path) -> BuildConfig:
    """The options with which a model's folder was built, on other images.

    Writes the names of the classes beside the folder of the images. Raises ModelUnavailable where
    the file is not the model's, or its folder does not tell the options.
    """
    manifest = model.manifest
    if not file.is_file() or sha256_of(file) != manifest.source_sha256:
        raise ModelUnavailable(
            f"{file.name} is not the file that {model.name} was built of, whose SHA-256 is "
            f"{manifest.source_sha256}"
        )
    classes = images.parent / "classes.txt"
    classes.write_text("\n".join(manifest.class_names), "utf-8")
    try:
        report = json.loads((model.folder / REPORT).read_bytes())
        options, has_ap = report["options"], report["guard"]["ap"] is not None
        return BuildConfig(
            file,
            images,
            size=manifest.size,
            head=manifest.head,
            preprocess=manifest.preprocess,
            classes=classes,
            openvino_device=options["accelerator"],
            # A limit of AP says nothing about agreement, which is all that is measured here.
            max_drop=None if has_ap else options.get("max_drop"),
            range_refinement=options.get("range_refinement", True),  # older folders do not say
            default=default_again(manifest),
            timing_caches=cache_root() / "timings",
            **{name: options[name] for name in KEPT},
        )
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise ModelUnavailable(
            f"the {REPORT} of {model.name} does not tell the options of its build"
        ) from exc


def default_again(manifest: Manifest) -> Default:
    """The precision that is served: times that are measured beside a server decide nothing."""
    precision = manifest.variants[manifest.default].precision
    named: dict[str, Default] = {name: name for name in get_args(Default)}
    return named.get(precision, "auto")
