"""What `qyolo doctor` prints: this machine, and the runtime that a build would choose."""

from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from quantizer.compile.hardware import Hardware, Installed, Missing, OpenVinoDevice
from quantizer.compile.runtime import RuntimeChoice, choose_runtime
from quantizer.config import Device
from quantizer.errors import BadOption
from qyolo.cli.options import message
from service.engines.gpu import NoGpu
from service.engines.intel import OPENVINO_NAMES, PLACES
from service.manifest import DEVICE_OF, Runtime


def choose(
    device: Device, runtime: Runtime | None, hardware: Hardware
) -> RuntimeChoice | BadOption:
    """The runtime of a build with these options, or why there is none."""
    try:
        return choose_runtime(device, runtime, hardware)
    except BadOption as exc:
        return exc


def as_json(
    hardware: Hardware,
    devices: tuple[OpenVinoDevice, ...] | Missing,
    answer: RuntimeChoice | BadOption,
) -> dict[str, Any]:
    """The hardware with either a choice or a refusal; the other one is None."""
    document: dict[str, Any] = {"hardware": asdict(hardware), "choice": None, "refusal": None}
    document["openvino_devices"] = (
        [] if isinstance(devices, Missing) else [asdict(each) for each in devices]
    )
    if isinstance(answer, BadOption):
        return document | {"refusal": message(answer)}
    return document | {"choice": {"device": DEVICE_OF[answer.runtime]} | asdict(answer)}


def show(
    hardware: Hardware,
    devices: tuple[OpenVinoDevice, ...] | Missing,
    answer: RuntimeChoice | BadOption,
) -> None:
    """A table of the hardware and the runtimes, then the choice."""
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print(_table(hardware, devices))
    if isinstance(answer, RuntimeChoice):
        console.print(f"a build takes {answer.reason}")
        for line in answer.better:
            console.print(f"for better: {line}")


def _table(hardware: Hardware, devices: tuple[OpenVinoDevice, ...] | Missing) -> Table:
    table = Table(show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("processor", ", ".join([hardware.cpu.model, *hardware.cpu.features]))
    table.add_row("threads", f"{hardware.threads} of the host's {hardware.cores}")
    limit = hardware.memory_limit_mib
    table.add_row("memory", "no limit" if limit is None else f"limited to {limit} MiB")
    table.add_row("GPU", _gpu(hardware))
    for kind, found in hardware.intel.items():
        table.add_row(PLACES[kind].title, found.file or found.reason)
    table.add_section()
    for runtime, state in hardware.runtimes.items():
        known = state.version if isinstance(state, Installed) else state.reason
        table.add_row(runtime, known)
    table.add_section()
    if isinstance(devices, Missing):
        table.add_row("OpenVINO", devices.reason)
        return table
    for device in devices:
        known = ", ".join(filter(None, (device.full_name, *device.precisions, device.driver)))
        table.add_row(f"OpenVINO {device.name}", known)
    for kind, found in hardware.intel.items():
        name = OPENVINO_NAMES[kind]
        if found.file and not any(each.name.partition(".")[0] == name for each in devices):
            table.add_row(f"OpenVINO {name}", f"has no driver for it: {PLACES[kind].packages}")
    return table


def _gpu(hardware: Hardware) -> str:
    gpu = hardware.gpu
    if isinstance(gpu, NoGpu):
        return gpu.reason
    return (
        f"{gpu.name}, compute capability {gpu.compute_capability}, {gpu.memory_mib} MiB, "
        f"driver {gpu.driver}, index {gpu.index}"
    )
