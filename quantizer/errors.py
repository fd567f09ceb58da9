"""The errors of a build: each message is one line that tells the user what to do."""

from service.vision.input_size import InputSize


class QuantizerError(Exception):
    """Base class of errors that the input or the environment causes."""


class UnsupportedModel(QuantizerError):
    """The ONNX file is unreadable, or not a detector of a known layout."""


class NoCalibrationImages(QuantizerError):
    """The calibration folder is missing, or none of its files can be decoded."""


class BadOption(QuantizerError):
    """A field of the configuration contradicts the model, this machine or another field.

    `field` is its name. `reason` starts with its value where that helps, so that it can follow the
    field's name or a command line's flag: "size" and "65: YOLOs take multiples of 32".
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(field, reason)
        self.field = field
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.field} {self.reason}"


class WorksAtOneSize(BadOption):
    """A model does not work at the size that is asked for, but at its `own`."""

    def __init__(self, reason: str, own: InputSize) -> None:
        super().__init__("size", reason)
        self.own = own

    def __reduce__(self) -> tuple[type, tuple[str, InputSize]]:
        return type(self), (self.reason, self.own)


class BuildFailed(QuantizerError):
    """A runtime could not compile the graph."""


class BadAnnotations(QuantizerError):
    """The annotation file is not COCO JSON, or describes other images or classes."""
