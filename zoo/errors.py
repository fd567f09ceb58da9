"""The errors of finding, downloading and verifying a model's file."""

from quantizer.errors import QuantizerError


class UnknownModel(QuantizerError):
    """Neither a file nor a name in the catalogue."""


class DownloadFailed(QuantizerError):
    """The server did not deliver the file, or it could not be written."""


class Distrusted(QuantizerError):
    """A file differs from its checksum, or has none and the user did not accept that."""
