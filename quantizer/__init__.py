"""float ONNX + images -> observe -> ranges -> Q/DQ graph -> compiled engines + report."""

import service  # noqa: F401  # first of all: it keeps the runtimes from calling home
