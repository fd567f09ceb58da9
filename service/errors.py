"""What can go wrong while serving, each error with the HTTP status that it means.

bytes -> [NotAnImage | ImageTooLarge | CorruptImage] -> image -> [Overloaded | NotReady] -> boxes

The message of an error reaches the client, unless its status is 500: it may speak of the request,
never of paths or versions.
"""

from typing import ClassVar


class ServiceError(Exception):
    """Base of all; `status` is the HTTP status, `title` the summary in the problem document."""

    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"
    retry_after_s: int | None = None  # where trying again helps

    @property
    def headers(self) -> dict[str, str]:
        """What the answer must say beside its document."""
        return {} if self.retry_after_s is None else {"Retry-After": str(self.retry_after_s)}


class BadRequest(ServiceError):
    status = 400
    title = "Bad request"


class Unauthorized(ServiceError):
    status = 401
    title = "API key needed"

    @property
    def headers(self) -> dict[str, str]:
        return {"WWW-Authenticate": 'Bearer realm="qyolo"'}


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
    title = "No answer of an acceptable type"


class BodyTooSlow(ServiceError):
    status = 408
    title = "The body took too long"

    @property
    def headers(self) -> dict[str, str]:
        return {"Connection": "close"}  # what still comes of the body would be read as a request


class PayloadTooLarge(ServiceError):
    status = 413
    title = "Payload too large"


class ImageTooLarge(ServiceError):
    status = 413
    title = "Image has too many pixels"


class UnsupportedUpload(ServiceError):
    status = 415
    title = "Unsupported media type"


class NotAnImage(ServiceError):
    status = 415
    title = "Not an image that is understood"


class CorruptImage(ServiceError):
    status = 422
    title = "Image cannot be decoded"


class UnknownClass(ServiceError):
    status = 422
    title = "Unknown class"


class Overloaded(ServiceError):
    status = 429
    title = "Too many requests"
    retry_after_s = 1


class RateLimited(ServiceError):
    status = 429
    title = "Too many requests of one client"

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class NotReady(ServiceError):
    status = 503
    title = "Not ready"
    retry_after_s = 5


class DeadlineExceeded(ServiceError):
    status = 504
    title = "The answer took too long"


class EngineFailed(ServiceError):
    """The runtime refused to load a model or to run it: our fault, not the client's."""


class BadModelFolder(ServiceError):
    """A model folder that is missing, incomplete, changed, or made by something else."""


class DeviceUnavailable(ServiceError):
    """The device or the runtime that was asked for is not there."""


class ModelUnavailable(ServiceError):
    """The model folder that the server waits for will not come: its build failed."""
