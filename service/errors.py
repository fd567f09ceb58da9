"""The errors of the server, each with its HTTP status.

bytes -> [NotAnImage | ImageTooLarge | CorruptImage] -> image -> [Overloaded | NotReady] -> boxes

The client gets the message of every error whose status is not 500: a message may describe the
request, never paths or versions of the server.
"""

import math
from collections.abc import Mapping
from typing import ClassVar


class ServiceError(Exception):
    """Base class; `status` and `title` are those of the problem document."""

    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"
    headers: Mapping[str, str] = {}  # of the response; Retry-After where a retry helps


class BadRequest(ServiceError):
    status = 400
    title = "Bad request"


class Unauthorized(ServiceError):
    status = 401
    title = "API key needed"
    headers: Mapping[str, str] = {"WWW-Authenticate": 'Bearer realm="qyolo"'}


class Forbidden(ServiceError):
    status = 403
    title = "Not allowed"


class ModelNotFound(ServiceError):
    status = 404
    title = "Unknown model"


class VariantNotFound(ServiceError):
    status = 404
    title = "Unknown variant"


class ReportNotFound(ServiceError):
    status = 404
    title = "No build report"


class NotAcceptable(ServiceError):
    status = 406
    title = "No acceptable media type"


class Refused(ServiceError):
    """A change of a served model that is not made."""

    status = 409
    title = "Change refused"


class BodyTooSlow(ServiceError):
    status = 408
    title = "Request body too slow"
    headers: Mapping[str, str] = {
        "Connection": "close"
    }  # the rest of the body would be read as a request


class PayloadTooLarge(ServiceError):
    status = 413
    title = "Payload too large"


class ImageTooLarge(ServiceError):
    status = 413
    title = "Image has too many pixels"


class ImageTooNarrow(ServiceError):
    status = 422
    title = "Image is too narrow"


class UnsupportedUpload(ServiceError):
    status = 415
    title = "Unsupported media type"


class NotAnImage(ServiceError):
    status = 415
    title = "Unsupported image format"


class CorruptImage(ServiceError):
    status = 422
    title = "Image cannot be decoded"


class InvalidRequest(ServiceError):
    status = 422
    title = "Invalid request"


class UnknownClass(ServiceError):
    status = 422
    title = "Unknown class"


class Overloaded(ServiceError):
    """The server has no room for a request now; `wait_s` is how long it would have to wait."""

    status = 429
    title = "Server at capacity"

    def __init__(self, message: str, wait_s: float = 0.0) -> None:
        super().__init__(message)
        self.headers = {"Retry-After": str(max(1, math.ceil(wait_s)))}


class RateLimited(ServiceError):
    status = 429
    title = "Rate limit exceeded"

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.headers = {"Retry-After": str(retry_after_s)}


class NotReady(ServiceError):
    status = 503
    title = "Not ready"
    headers: Mapping[str, str] = {"Retry-After": "5"}


class OutOfMemory(ServiceError):
    status = 503
    title = "Out of memory"
    headers: Mapping[str, str] = {"Retry-After": "5"}


class VariantFailed(NotReady):
    """The engine of a variant is out of service; it is being loaded again."""

    title = "Variant out of service"


class DeadlineExceeded(ServiceError):
    status = 504
    title = "Deadline exceeded"


class EngineFailed(ServiceError):
    """The runtime failed to load a model or to run it."""


class BadModelFolder(ServiceError):
    """A model folder is missing, incomplete, changed, or in another format."""


class DeviceUnavailable(ServiceError):
    """The requested device or its runtime is missing."""


class ModelUnavailable(ServiceError):
    """The build of the model folder failed."""
