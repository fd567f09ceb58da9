"""What a front and a worker must agree on, although an update replaces them one by one."""

import hashlib

from service.manifest import Manifest


def contract_of(manifest: Manifest) -> str:
    """Equal for models whose answers a front may put in the same words: classes and tensors."""
    shapes = (manifest.class_names, manifest.size, manifest.output_shape)
    return hashlib.sha256(repr(shapes).encode()).hexdigest()


class OtherModel:
    """A worker's word that it has a model of another contract."""
