"""One deployment: the model folder, the number of replicas, and the resources of each."""

from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from quantizer.errors import BadOption
from service.manifest import Manifest
from service.settings import Settings

# Settings that a cluster does not support.
ONE_SERVER_ONLY: Final = ("collect", "shadow", "otel", "max_wait_ms", "zmq", "models")


def _only_known(settings: object) -> object:
    """Raise ValueError for an unknown name, which Settings ignore."""
    if isinstance(settings, dict) and (unknown := set(settings) - set(Settings.model_fields)):
        raise ValueError(f"not a setting: {', '.join(sorted(unknown))}")
    return settings


class Plan(BaseModel):
    """The deployment of one model folder; also the `args` of an application in a Serve config.

    `qyolo cluster` makes its options from these fields.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: Path = Field(description="model folder on the node that reads the plan")
    variants: tuple[str, ...] = Field(
        default=(),
        description="variant to serve beside the default and those of --ab; repeatable",
        json_schema_extra={"option": "variant"},
    )
    min_replicas: int = Field(
        default=1,
        ge=1,
        description="least number of replicas of each variant",
        json_schema_extra={"option": "min"},
    )
    max_replicas: int | None = Field(
        default=None,
        ge=1,
        description="largest number of replicas of each variant, reached as requests in flight "
        "demand it; default: the least number",
        json_schema_extra={"option": "max"},
    )
    cpus: float = Field(
        default=1, ge=0.01, description="CPUs of a replica, which its threads follow"
    )
    gpus: float = Field(default=0, ge=0, description="GPUs of a replica; 0.5 is half of one")
    fronts: int = Field(default=2, ge=1, description="replicas of the ingress, which answers HTTP")
    surge_percent: int = Field(
        default=100,
        ge=0,
        le=100,
        description="replicas that an update starts before it stops old ones, if the cluster has "
        "room for them; 0 stops old ones first",
        json_schema_extra={"option": "surge", "metavar": "PERCENT"},
    )
    settings: Annotated[Settings, BeforeValidator(_only_known)] = Field(default_factory=Settings)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.most_replicas < self.min_replicas:
            raise BadOption(
                "max_replicas", f"{self.max_replicas}: fewer than min_replicas {self.min_replicas}"
            )
        return self

    @property
    def most_replicas(self) -> int:
        return self.max_replicas or self.min_replicas

    @property
    def threads(self) -> int:
        """Inference threads of a replica: as set, or its CPU quota rounded down."""
        return self.settings.threads or max(1, int(self.cpus))

    def capacity(self, manifest: Manifest) -> int:
        """Requests in flight that a replica admits, by default as many as keep it busy."""
        # Here and below: the command line reads the fields alone and starts without the pipeline.
        from service.inference.admission import default_capacity
        from service.inference.variants import streams_of

        streams = streams_of(manifest, self.threads, self.settings.throughput)
        return self.settings.capacity or default_capacity(streams, self.threads)

    def served(self, manifest: Manifest) -> tuple[str, ...]:
        """The variants that get a deployment, in the manifest's order.

        Raises BadOption for what a cluster or this model does not have, BadExperiment.
        """
        from service.experiments.split import read_experiment

        for name in ONE_SERVER_ONLY:
            if getattr(self.settings, name):
                raise BadOption(name, "is for one server: a cluster does without")
        if manifest.device == "gpu" and not self.gpus:
            raise BadOption(
                "gpus", "0: the model is built for a GPU: give each replica one, or a part of one"
            )
        experiment = read_experiment(self.settings.ab, self.settings.shadow)
        experiment.check(manifest.variants)
        for name in self.variants:
            if name not in manifest.variants:
                known = ", ".join(manifest.variants)
                raise BadOption("variants", f"{name} is not in this model; there are: {known}")
        weights = () if experiment.split is None else experiment.split.weights
        named = {manifest.default, *weights, *self.variants}
        return tuple(name for name in manifest.variants if name in named)
