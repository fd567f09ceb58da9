"""A model's name -> its file: the bundled model, a path, or a model of the catalogue."""

import os
from pathlib import Path

from rich.console import Console
from rich.table import Table

from quantizer.model.files import require_onnx
from qyolo.cli.progress import progress_bars
from qyolo.user_cache import cache_root
from zoo import bundle
from zoo.catalogue import Entry, catalogue, entry
from zoo.store import ModelStore


def model_store() -> ModelStore:
    """The catalogue's models in this user's cache; QYOLO_MIRROR replaces their addresses."""
    return ModelStore(cache_root() / "models", os.environ.get("QYOLO_MIRROR"))


def model_file(name: str, store: ModelStore, trust_on_first_use: bool) -> Path:
    """The file of a model; downloads a catalogue model on its first use.

    Raises UnknownModel, UnsupportedModel, Distrusted, DownloadFailed.
    """
    if name == bundle.NAME:
        return bundle.model()
    path = Path(name)
    if path.suffix or path.name != name or path.exists():
        require_onnx(path)
        return path
    model = entry(name)
    if not store.holds(model):
        _introduce(model, store)
    with progress_bars() as progress:
        return store.take(model, trust_on_first_use, progress)


def _introduce(model: Entry, store: ModelStore) -> None:
    """Print publisher, licence and address on stderr."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(f"{model.name} by {model.publisher}, licence {model.licence}")
    if model.copyleft:
        console.print(
            f"{model.licence}: if you serve this model to others over a network, you must offer "
            "them the complete source of the service. The publisher sells other licences.",
            style="yellow",
        )
    if model.export is None:
        console.print(f"from {store.address_of(model)}")


def as_table(store: ModelStore) -> Table:
    """The catalogue with each file's state."""
    table = Table(caption="AP: COCO val2017, as published, at that input size; * copyleft (AGPL)")
    for heading in ("model", "by", "licence", "M params", "MB", "input", "AP", "file"):
        numeric = heading in {"M params", "MB", "input", "AP"}
        table.add_column(
            heading, justify="right" if numeric else "left", no_wrap=heading == "model"
        )
    for model in catalogue():
        table.add_row(
            model.name,
            model.publisher,
            f"{model.licence}{' *' if model.copyleft else ''}",
            f"{model.params_m:g}",
            f"{model.bytes / 1e6:.1f}" if model.bytes else "?",
            str(model.input),
            f"{model.ap:.1f}" if model.ap else "?",
            state_of(model, store),
        )
    return table


def state_of(model: Entry, store: ModelStore) -> str:
    """Whether the file is here, or what a download needs."""
    if store.holds(model):
        return "here"
    if model.export is not None:
        return "export it yourself"
    return "checksum known" if model.sha256 else "--trust-on-first-use"
