"""What an ingress and a worker must agree on while an update replaces them one by one."""

import hashlib

from service.manifest import Manifest


def compatibility_of(manifest: Manifest) -> str:
    """A digest that is equal for models with the same classes and the same tensor shapes."""
    facts = (manifest.class_names, manifest.size.written, manifest.output_shape)
    return hashlib.sha256(repr(facts).encode()).hexdigest()


class Incompatible:
    """A worker's answer to an ingress of an incompatible model."""
