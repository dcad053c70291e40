"""The command-line options about where a model runs, and the keys of ``[models.device]`` that they stand for."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Any, Final

import typer

from modelyard.cli.usage import UsageError

DEVICE: Final = "Options of memory and device"
CpuOption = Annotated[
    bool, typer.Option("--cpu", help="Use only the CPU, even if there is an accelerator.", rich_help_panel=DEVICE)
]
DeviceLayersOption = Annotated[
    str | None,
    typer.Option(
        "--device-layers",
        "-n",
        metavar="LAYERS",
        help="Number of layers on the accelerator, or on each device: 0:20;1:12.",
        rich_help_panel=DEVICE,
    ),
]
DevicesOption = Annotated[
    str | None,
    typer.Option(
        "--devices",
        metavar="NAMES",
        help="Accelerators to use, as modelyard doctor names them: CUDA0,CUDA1. [dim]\\[default: all][/]",
        rich_help_panel=DEVICE,
    ),
]
CpuMoeOption = Annotated[
    int | None,
    typer.Option(
        "--n-cpu-moe",
        metavar="N",
        help="Layers whose experts stay in the machine's memory, counted from the first.",
        rich_help_panel=DEVICE,
    ),
]
TensorOverridesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--tensor-override",
        metavar="PATTERN=PLACE",
        help="Put tensors whose names match on host or on a device; can be repeated.",
        rich_help_panel=DEVICE,
    ),
]
SplitModeOption = Annotated[
    str | None,
    typer.Option(
        "--split-mode",
        metavar="MODE",
        help="How accelerators share the model: layer, row, or none. [dim]\\[default: layer][/]",
        rich_help_panel=DEVICE,
    ),
]
TensorSplitOption = Annotated[
    str | None,
    typer.Option(
        "--tensor-split",
        metavar="PARTS",
        help="Part of the model on each accelerator: 3,1. [dim]\\[default: by free memory][/]",
        rich_help_panel=DEVICE,
    ),
]
MainGpuOption = Annotated[
    int | None,
    typer.Option(
        "--main-gpu",
        metavar="N",
        help="Accelerator for the whole model with --split-mode none. [dim]\\[default: 0][/]",
        rich_help_panel=DEVICE,
    ),
]
KvOnHostOption = Annotated[
    bool,
    typer.Option("--kv-on-host", help="Keep the KV cache in the machine's memory.", rich_help_panel=DEVICE),
]
MlockOption = Annotated[
    bool, typer.Option("--mlock", help="Lock the weights in the machine's memory.", rich_help_panel=DEVICE)
]
NoMmapOption = Annotated[
    bool, typer.Option("--no-mmap", help="Read the files instead of mapping them.", rich_help_panel=DEVICE)
]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceOptions:
    """The options about where a model runs. None, or False for switches, where an option is not given."""

    cpu: CpuOption = False
    device_layers: DeviceLayersOption = None
    devices: DevicesOption = None
    n_cpu_moe: CpuMoeOption = None
    tensor_override: TensorOverridesOption = None
    split_mode: SplitModeOption = None
    tensor_split: TensorSplitOption = None
    main_gpu: MainGpuOption = None
    kv_on_host: KvOnHostOption = False
    mlock: MlockOption = False
    no_mmap: NoMmapOption = False


DEVICE_OPTIONS: Final = tuple(field.name for field in fields(DeviceOptions))
"""Names of these options, which commands that run no model do not offer."""


def device_keys(options: DeviceOptions) -> dict[str, Any]:
    """Return the keys of ``[models.device]`` that the options set; None for those that are not given.

    Raises:
        UsageError: the value of an option has another form.
    """
    return {
        "cpu": options.cpu or None,
        "device_layers": _layers(options.device_layers),
        "devices": _names(options.devices),
        "n_cpu_moe": options.n_cpu_moe,
        "tensor_overrides": options.tensor_override or None,
        "split_mode": options.split_mode,
        "tensor_split": _parts(options.tensor_split),
        "main_gpu": options.main_gpu,
        "kv_on_host": options.kv_on_host or None,
        "mlock": options.mlock or None,
        "mmap": False if options.no_mmap else None,
    }


def _layers(text: str | None) -> int | list[str] | None:
    """Return the value of --device-layers in the form of the configuration's ``device_layers``.

    Raises:
        UsageError: it is neither a number nor numbers by device.
    """
    if text is None:
        return None
    from modelyard.config.device_layers import MAX_DEVICES, MAX_LAYERS, read_device_layers

    layers = int(text) if text.isdecimal() and len(text) < 10 else text.split(";")
    try:
        read_device_layers(layers)
    except ValueError:
        raise UsageError(
            f"--device-layers must be a number of layers up to {MAX_LAYERS}, or layers by device from 0 to "
            f"{MAX_DEVICES - 1}, such as '0:20;1:12', not '{text}'. 'modelyard doctor' lists the devices."
        ) from None
    return layers


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",")]


def _parts(text: str | None) -> list[float] | None:
    """Return the value of --tensor-split as numbers.

    Raises:
        UsageError: it is no list of numbers.
    """
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"--tensor-split must be a number for each accelerator, such as 3,1, not '{text}'.") from None
