"""What can go wrong while building: one line for the user, saying what to do."""


class QuantizerError(Exception):
    """Base of all errors that are the input's or the environment's fault."""


class UnsupportedModel(QuantizerError):
    """The ONNX file is unreadable, or not a detector of a known layout."""


class NoCalibrationImages(QuantizerError):
    """No folder was given, or nothing in it can be decoded."""


class BadOption(QuantizerError):
    """An option that contradicts the model or another option."""


class BuildFailed(QuantizerError):
    """A runtime could not compile the graph."""


class BadAnnotations(QuantizerError):
    """The annotation file is not COCO JSON, or speaks of other images."""
