"""The server's settings, read once from the environment; the descriptions are their reference."""

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import (
    BeforeValidator,
    Field,
    IPvAnyAddress,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SecretStr,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

# Twelve images of a small detector; random arrivals at 80 % of the saturating rate seldom bring
# more: see bench/saturation.py.
DEFAULT_MAX_WAIT_S: Final = 0.15
DEFAULT_WAITING_IMAGES: Final = 16


def _listed(value: object) -> object:
    """A text of the environment, split at its commas."""
    if not isinstance(value, str):
        return value
    return tuple(part.strip() for part in value.split(",") if part.strip())


class Settings(BaseSettings):
    """Every field is set by QYOLO_<NAME>; command-line options override the environment."""

    model_config = SettingsConfigDict(env_prefix="QYOLO_", frozen=True, extra="ignore")

    models: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed)] = Field(
        default=(),
        description="model folders, comma-separated, each FOLDER or NAME=FOLDER: those of `qyolo "
        "serve` where it names none; with `qyolo up` more models, beside the one that it builds",
    )
    float_models: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed)] = Field(
        default=(),
        description="float ONNX models that the folders were built of, comma-separated, each FILE "
        "or, where a folder is served under another name, NAME=FILE: `qyolo recalibrate` builds "
        "with them. `qyolo up` knows that of the first model",
    )
    model_memory: NonNegativeInt = Field(
        default=0,
        description="bytes of memory that loaded models may take, as measured when each is loaded; "
        "beyond it those used longest ago are unloaded, but for the first, and loaded again by "
        "their next request. 0 is no limit",
    )
    watch_s: NonNegativeFloat = Field(
        default=0,
        description="seconds between two looks at the model folders: a new build in one is checked "
        "and served, as by `qyolo reload`. 0 does not look",
    )
    host: str = Field(default="127.0.0.1", description="address to listen on")
    port: int = Field(
        default=8000, ge=0, le=65535, description="TCP port to listen on; 0 picks a free one"
    )
    threads: NonNegativeInt = Field(
        default=0,
        description="inference threads; 0 takes the CPU quota of the cgroup, rounded down",
    )
    throughput: bool = Field(
        default=False,
        description="infer as many images at a time as there are threads, each on one thread: more "
        "images a second, but each takes longer",
    )
    zmq: str | None = Field(
        default=None,
        pattern=r"^(ipc|tcp)://.",
        description="endpoint for Frigate's zmq detector, for example "
        "ipc:///tmp/cache/zmq_detector; needs the extra frigate",
        json_schema_extra={"metavar": "ENDPOINT"},
    )
    capacity: NonNegativeInt = Field(
        default=0,
        description="requests in progress at a time; one more gets status 429. 0 sets no number: "
        "`max_wait_ms` decides",
    )
    max_wait_ms: PositiveFloat | None = Field(
        default=None,
        description="milliseconds that a request may have to wait, as predicted from measured "
        "times; one that would wait longer gets status 429. Two images for each one that the "
        "engine infers at a time may always be before it. Default: 150, or the time of 16 "
        "images if that is longer; with `capacity` no limit",
    )
    max_bytes: PositiveInt = Field(
        default=20 * 2**20,
        description="largest request body in bytes; a larger one gets status 413",
    )
    max_inflight_bytes: PositiveInt = Field(
        default=64 * 2**20,
        description="bytes of all request bodies in memory, at least `max_bytes`; a request that "
        "does not fit gets status 429",
    )
    max_pixels: int = Field(
        default=50_000_000,
        ge=1,
        le=178_000_000,
        description="largest image in pixels; a larger one gets status 413 before it is decoded",
    )
    decode_memory: NonNegativeInt = Field(
        default=0,
        description="bytes of all images in progress; one that does not fit waits, and one that "
        "never can gets status 413. A pixel takes 7 bytes, in a WebP 16. 0 takes a quarter of the "
        "cgroup's memory limit, at most 512 MiB",
    )
    conf: float = Field(default=0.25, ge=0, lt=1, description="default score threshold")
    iou: float = Field(default=0.45, gt=0, le=1, description="default IoU threshold of the NMS")
    max_det: int = Field(
        default=300, ge=1, le=1000, description="default limit of boxes in a response"
    )
    drain_s: PositiveInt = Field(
        default=30, description="seconds that requests in flight have to finish after SIGTERM"
    )
    collect: Path | None = Field(
        default=None,
        description="folder for a random sample of the served images, for calibration; where "
        "there are several models, each has a folder of its name in it",
    )
    collect_limit: int = Field(
        default=200, ge=1, le=10_000, description="most images in the folder of `collect`"
    )
    ab: str | None = Field(
        default=None,
        description="A/B split: weights of the variants for requests that name none, for "
        "example int8:0.9,fp32:0.1; of other models after the first, ;NAME=int8:0.9,fp32:0.1",
        json_schema_extra={"metavar": "VARIANT:WEIGHT,..."},
    )
    shadow: str | None = Field(
        default=None,
        description="shadow variant, and the share of the images that it infers in the "
        "background, for example fp32:0.05",
        json_schema_extra={"metavar": "VARIANT:SHARE"},
    )
    api_keys: SecretStr | None = Field(
        default=None,
        description="API keys, comma-separated: [name:]secret or [name:]sha256:<hex>; a request "
        "without one gets status 401",
    )
    api_keys_file: Path | None = Field(
        default=None, description="file with more API keys, one a line"
    )
    insecure: bool = Field(
        default=False, description="serve without API keys on an address that others can reach"
    )
    published: IPvAnyAddress | None = Field(
        default=None,
        description="in a container: the host's address of the published port, which decides "
        "whether others can reach the server",
    )
    open_metrics: bool = Field(default=False, description="/metrics needs no API key")
    rate_limit: float | None = Field(
        default=None,
        gt=0,
        le=1e6,
        description="requests a second of each API key, or of each address where there are no "
        "keys; more get status 429",
    )
    rate_burst: int = Field(
        default=20, ge=1, le=1_000_000, description="requests that `rate_limit` allows at once"
    )
    cors_origins: str | None = Field(
        default=None,
        description="origins whose pages may call the API, comma-separated; * allows all",
    )
    trusted_proxies: str | None = Field(
        default=None,
        description="addresses of proxies whose X-Forwarded-For is trusted, comma-separated",
    )
    deadline_s: PositiveFloat = Field(
        default=30,
        description="seconds from a request's headers to its response; then it gets status 504",
    )
    header_timeout_s: PositiveFloat = Field(
        default=10, description="seconds for a request's headers; then it gets status 408"
    )
    body_timeout_s: PositiveFloat = Field(
        default=10,
        description="seconds for a request's body, plus one for each 64 KiB received; then it "
        "gets status 408",
    )
    max_connections: PositiveInt = Field(
        default=512,
        description="open connections; a new one replaces an idle one, or gets status 503 for all "
        "but probes and metrics",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="least severe level that is logged"
    )
    log_format: Literal["human", "json"] = Field(
        default="human", description="human: lines to read; json: one object a line"
    )
    otel: bool = Field(
        default=False,
        description="export OpenTelemetry traces over OTLP; OTEL_EXPORTER_OTLP_ENDPOINT does too",
    )

    @property
    def max_wait_s(self) -> float | None:
        """The limit of the predicted wait in seconds; None: only `capacity` limits."""
        if self.max_wait_ms is None:
            return None if self.capacity else DEFAULT_MAX_WAIT_S
        return self.max_wait_ms / 1000

    @property
    def waiting_images(self) -> int:
        """So many images may wait, whatever they take: of random arrivals at 80 % of what the box
        can infer, hardly one finds more before it."""
        return DEFAULT_WAITING_IMAGES if self.max_wait_ms is None and not self.capacity else 0
