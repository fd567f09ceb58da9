"""What can go wrong on the way from a model's name to its file."""

from quantizer.errors import QuantizerError


class UnknownModel(QuantizerError):
    """Neither a file nor a name in the catalogue."""


class DownloadFailed(QuantizerError):
    """The address cannot be reached, broke off, or the disk did not take the file."""


class Distrusted(QuantizerError):
    """A file differs from its checksum, or has none and nobody vouched for it."""
