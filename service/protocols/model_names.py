"""Model names for protocols that have no variants: each variant is a model of its own."""

from collections.abc import Mapping

from service.errors import ModelNotFound
from service.inference.models import Model, Models


def variants_by_name(models: Models, separator: str) -> Mapping[str, tuple[Model, str | None]]:
    """NAME -> its model and None, NAME<separator>VARIANT -> its model and that variant.

    A name that means two things is the model's.
    """
    known: dict[str, tuple[Model, str | None]] = {}
    for model in models:
        known[model.name] = (model, None)
        for variant in model.variants:
            known.setdefault(f"{model.name}{separator}{variant}", (model, variant))
    return known


def find_variant(name: str, models: Models, separator: str) -> tuple[Model, str | None]:
    """The model and, where the name has one, the variant; raises ModelNotFound."""
    known = variants_by_name(models, separator)
    if name not in known:
        raise ModelNotFound(f"no model {name!r}; there are: {', '.join(known)}")
    return known[name]
