"""Model names for protocols that have no variants: each variant is a model of its own."""

from collections.abc import Mapping
from typing import Any

from service.errors import ModelNotFound
from service.inference.variants import VariantSet


def variants_by_name(variants: VariantSet[Any], separator: str) -> Mapping[str, str | None]:
    """NAME -> None, and NAME<separator>VARIANT -> that variant; None is no variant's name."""
    name = variants.manifest.name
    return {name: None} | {f"{name}{separator}{variant}": variant for variant in variants.names}


def find_variant(name: str, variants: VariantSet[Any], separator: str) -> str | None:
    """The variant of a model name; None where it names none. Raises ModelNotFound."""
    known = variants_by_name(variants, separator)
    if name not in known:
        raise ModelNotFound(f"no model {name!r}; there are: {', '.join(known)}")
    return known[name]
