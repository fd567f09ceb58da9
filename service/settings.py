"""The environment, read once at the rim and then handed down."""

from pathlib import Path
from typing import Literal

from pydantic import Field, IPvAnyAddress, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Every field can be set as QYOLO_<NAME>; a command-line option wins over the environment."""

    model_config = SettingsConfigDict(env_prefix="QYOLO_", frozen=True, extra="ignore")

    host: str = Field(default="127.0.0.1", description="address to listen on")
    port: int = Field(
        default=8000, ge=0, le=65535, description="port to listen on; 0 picks a free one"
    )
    threads: int = Field(
        default=0,
        ge=0,
        description="inference threads; 0 takes the CPU quota of the cgroup, rounded down",
    )
    throughput: bool = Field(
        default=False,
        description="as many images as possible, each on a thread of its own, not each as soon as "
        "possible on all threads",
    )
    capacity: int = Field(
        default=0,
        ge=0,
        description="requests in the house at once; one more is answered 429; 0 takes two for "
        "each image that the engine infers at a time and one for each that it decodes (half as "
        "many as threads, at most 8), so that nobody waits long",
    )
    max_bytes: int = Field(
        default=20 * 2**20,
        ge=1,
        description="largest request body, in bytes; a larger one is answered 413",
    )
    max_pixels: int = Field(
        default=50_000_000,
        ge=1,
        le=178_000_000,
        description="largest image, in pixels; checked undecoded",
    )
    conf: float = Field(default=0.25, ge=0, lt=1, description="default score threshold")
    iou: float = Field(default=0.45, gt=0, le=1, description="default IoU threshold of the NMS")
    max_det: int = Field(
        default=300, ge=1, le=1000, description="default limit of boxes in an answer"
    )
    drain_s: int = Field(
        default=30, ge=1, description="seconds that accepted requests get to finish after SIGTERM"
    )
    collect: Path | None = Field(
        default=None,
        description="folder that keeps a sample of the served images for the next calibration",
    )
    collect_limit: int = Field(
        default=200, ge=1, le=10_000, description="images that the folder keeps at most"
    )
    ab: str | None = Field(
        default=None,
        description="weights of the variants where a request names none: int8:0.9,fp32:0.1",
    )
    shadow: str | None = Field(
        default=None,
        description="variant that answers a share of the images too, afterwards: fp32:0.05",
    )
    api_keys: SecretStr | None = Field(
        default=None, description="keys that open the server, comma-separated: [name:]secret"
    )
    api_keys_file: Path | None = Field(
        default=None, description="file with more keys, one a line: [name:]secret"
    )
    insecure: bool = Field(
        default=False, description="serve without keys on an address that others can reach"
    )
    published: IPvAnyAddress | None = Field(
        default=None,
        description="address where a container's port is published: it tells who can reach it",
    )
    open_metrics: bool = Field(default=False, description="/metrics needs no key")
    rate_limit: float | None = Field(
        default=None,
        gt=0,
        le=1e6,
        description="requests a second of one key, or of one address where there are no keys",
    )
    rate_burst: int = Field(
        default=20, ge=1, le=1_000_000, description="requests that may come at once within it"
    )
    cors_origins: str | None = Field(
        default=None, description="origins whose pages may ask, comma-separated; * for all"
    )
    trusted_proxies: str | None = Field(
        default=None, description="addresses whose X-Forwarded-For is believed, comma-separated"
    )
    deadline_s: float = Field(
        default=30, gt=0, description="seconds from a request's headers to its answer"
    )
    header_timeout_s: float = Field(
        default=10, gt=0, description="seconds that a request's headers may take"
    )
    body_timeout_s: float = Field(
        default=10,
        gt=0,
        description="seconds that a body may take, and one more for each 64 KiB of it",
    )
    max_connections: int = Field(
        default=512, ge=1, description="open connections; idle ones give way to new ones"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="how much is logged"
    )
    log_format: Literal["human", "json"] = Field(
        default="human", description="lines to read, or JSON to collect"
    )
    otel: bool = Field(default=False, description="send OpenTelemetry traces over OTLP")


def listed(text: str | None) -> tuple[str, ...]:
    """The items of a comma-separated setting."""
    return tuple(item for part in (text or "").split(",") if (item := part.strip()))
