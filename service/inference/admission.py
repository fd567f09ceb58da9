"""Where requests are answered: a bounded number at once, each by the variant that is due to it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from service.errors import Overloaded
from service.experiments.events import Assigned
from service.experiments.split import Experiment
from service.inference.events import Event
from service.inference.variants import AUTO, Closable, VariantSet

T = TypeVar("T", bound=Closable)


class BaseBackend(Generic[T]):
    """What a pipeline and replicas elsewhere have in common; owns the variants."""

    def __init__(
        self,
        variants: VariantSet[T],
        capacity: int,
        observe: Callable[[Event], None],
        experiment: Experiment,
    ) -> None:
        self.variants = variants
        self.experiment = experiment
        self._capacity = capacity
        self._observe = observe
        self._inside = 0

    def choose(self, variant: str | None, client: str) -> str:
        """The variant that is named; where none is, the client's own by the split, or the default.

        Raises VariantNotFound.
        """
        split = self.experiment.split
        if split is None or variant not in (None, AUTO):
            return self.variants.get(variant)[0]
        chosen = split.choose(client)
        self._observe(Assigned(chosen))
        return chosen

    def ensure_room(self) -> None:
        """Raise Overloaded when the house is full, so that no upload is read in vain."""
        if self._inside >= self._capacity:
            raise Overloaded(f"{self._capacity} requests are in the house; try again shortly")

    @contextmanager
    def _slot(self) -> Iterator[None]:
        self.ensure_room()
        self._inside += 1
        try:
            yield
        finally:
            self._leave()

    def _leave(self) -> None:
        self._inside -= 1
