"""The environment, read once at the rim and then handed down."""

from pathlib import Path
from typing import Literal

from pydantic import Field
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
    capacity: int = Field(
        default=32, ge=1, description="requests in the house at once; one more is answered 429"
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
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="how much is logged"
    )
