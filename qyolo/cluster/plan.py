"""What is to run on the cluster: a model folder, how many replicas, and what each of them gets."""

from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, model_validator

from quantizer.errors import BadOption
from service.experiments.split import read_experiment
from service.inference.pipeline import room
from service.inference.variants import streams_of
from service.manifest import Manifest
from service.settings import Settings

# What a server does by itself and a cluster of them does not.
ALONE: Final = ("collect", "shadow", "otel")


def _settings(given: object) -> Settings:
    """Of a mapping, over the environment's; raises ValueError for a name that is not a setting."""
    if isinstance(given, Settings):
        return given
    if not isinstance(given, dict) or (unknown := set(given) - set(Settings.model_fields)):
        raise ValueError(f"not a setting: {', '.join(sorted(unknown))}" if given else "no mapping")
    return Settings(**given)


class Plan(BaseModel):
    """One deployment of the detector; also the `args` of an application in a Serve config file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: Path  # a model folder, on the node where this is read
    variants: tuple[str, ...] = ()  # served beside the default and those of the A/B split
    min_replicas: int = Field(default=1, ge=1)  # of each variant
    max_replicas: int = Field(default=1, ge=1)
    cpus: float = Field(default=1, gt=0)  # of each replica, as Ray counts them
    gpus: float = Field(default=0, ge=0)  # likewise; half a GPU is 0.5
    fronts: int = Field(default=2, ge=1)  # that answer HTTP and ask the replicas
    surge_percent: int = Field(default=100, ge=0, le=100)  # see `qyolo cluster --surge`
    settings: Annotated[Settings, PlainValidator(_settings)] = Field(default_factory=Settings)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.max_replicas < self.min_replicas:
            raise BadOption(
                "max_replicas", f"{self.max_replicas}: fewer than min_replicas {self.min_replicas}"
            )
        return self

    @property
    def threads(self) -> int:
        """Inference threads of a replica: what is set, or its CPU quota rounded down."""
        return self.settings.threads or max(1, int(self.cpus))

    def capacity(self, manifest: Manifest) -> int:
        """Requests that a replica takes at once, as a plain server's."""
        streams = streams_of(manifest, self.threads, self.settings.throughput)
        return self.settings.capacity or room(streams, self.threads)

    def served(self, manifest: Manifest) -> tuple[str, ...]:
        """The variants that get a deployment, in the manifest's order.

        Raises BadOption, BadExperiment where one is named that the model does not have.
        """
        for name in ALONE:
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
        wanted = {manifest.default, *weights, *self.variants}
        return tuple(name for name in manifest.variants if name in wanted)
