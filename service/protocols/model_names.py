"""The names under which protocols without variants reach them."""

from collections.abc import Mapping

from service.errors import ModelNotFound
from service.inference.detector import Detector
from service.inference.variants import VariantSet


def variants_by_name(variants: VariantSet[Detector], joint: str) -> Mapping[str, str | None]:
    """The model's name for the default variant, NAME<joint>VARIANT for each of them."""
    name = variants.manifest.name
    return {name: None} | {f"{name}{joint}{variant}": variant for variant in variants.names}


def find_variant(name: str, variants: VariantSet[Detector], joint: str) -> str | None:
    """The variant that a name means; raises ModelNotFound."""
    known = variants_by_name(variants, joint)
    if name not in known:
        raise ModelNotFound(f"no model {name!r}; there are: {', '.join(known)}")
    return known[name]
