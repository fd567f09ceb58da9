"""What `qyolo doctor` prints: this machine, and the runtime that a build would choose."""

from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from quantizer.compile.hardware import Hardware, Installed
from quantizer.compile.runtime import RuntimeChoice, choose_runtime
from quantizer.config import Device
from quantizer.errors import BadOption
from qyolo.cli.options import message
from service.engines.gpu import NoGpu
from service.manifest import DEVICE_OF, Runtime


def choose(
    device: Device, runtime: Runtime | None, hardware: Hardware
) -> RuntimeChoice | BadOption:
    """The runtime of a build with these options, or why there is none."""
    try:
        return choose_runtime(device, runtime, hardware)
    except BadOption as exc:
        return exc


def as_json(hardware: Hardware, answer: RuntimeChoice | BadOption) -> dict[str, Any]:
    """The hardware with either a choice or a refusal; the other one is None."""
    document: dict[str, Any] = {"hardware": asdict(hardware), "choice": None, "refusal": None}
    if isinstance(answer, BadOption):
        return document | {"refusal": message(answer)}
    return document | {"choice": {"device": DEVICE_OF[answer.runtime]} | asdict(answer)}


def show(hardware: Hardware, answer: RuntimeChoice | BadOption) -> None:
    """A table of the hardware and the runtimes, then the choice."""
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print(_table(hardware))
    if isinstance(answer, RuntimeChoice):
        console.print(f"a build takes {answer.reason}")
        for line in answer.better:
            console.print(f"for better: {line}")


def _table(hardware: Hardware) -> Table:
    table = Table(show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("processor", ", ".join([hardware.cpu.model, *hardware.cpu.features]))
    table.add_row("threads", f"{hardware.threads} of the host's {hardware.cores}")
    limit = hardware.memory_limit_mib
    table.add_row("memory", "no limit" if limit is None else f"limited to {limit} MiB")
    table.add_row("GPU", _gpu(hardware), end_section=True)
    for runtime, state in hardware.runtimes.items():
        known = state.version if isinstance(state, Installed) else state.reason
        table.add_row(runtime, known)
    return table


def _gpu(hardware: Hardware) -> str:
    gpu = hardware.gpu
    if isinstance(gpu, NoGpu):
        return gpu.reason
    return (
        f"{gpu.name}, compute capability {gpu.compute_capability}, {gpu.memory_mib} MiB, "
        f"driver {gpu.driver}, index {gpu.index}"
    )
