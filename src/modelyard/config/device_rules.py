"""The rules about where models run: which keys of ``[models.device]`` contradict each other. Pure; see ``rules``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from modelyard.config.tables import label
from modelyard.config.tensor_overrides import HOST_PLACE, pattern_fault
from modelyard.config.wording import shown
from modelyard.errors.configuration import ConfigProblem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from modelyard.config.model import Device, Model
    from modelyard.config.schema import Memory

_KEEP_ONE: Final = "Keep one of them."
_NAME_A_DEVICE: Final = "Name a device as `modelyard doctor` lists it, such as CUDA0."

# A fault of one table: message, hint, and its keys, the one at fault first.
_Fault = tuple[str, str, tuple[str, ...]]


def repeated_budgets(memory: Memory) -> list[ConfigProblem]:
    """Require that each device has one budget: names differ in more than capital letters, and none is empty."""
    problems = []
    first: dict[str, str] = {}
    for name, _ in memory.devices:
        location = ("memory", "devices", name)
        if not name.strip():
            problems.append(
                ConfigProblem("devices: a name is empty.", _NAME_A_DEVICE, table="[memory]", location=location)
            )
        elif (other := first.setdefault(name.strip().lower(), name)) != name:
            problems.append(
                ConfigProblem(
                    f"devices: {shown(other)} and {shown(name)} are the same device.",
                    _KEEP_ONE,
                    table="[memory]",
                    location=location,
                    related=(("memory", "devices", other),),
                )
            )
    return problems


def mixed_cpu(models: Mapping[int, Model]) -> list[ConfigProblem]:
    """Require that all models that set ``cpu`` set it to the same value."""
    on, off = ([number for number, model in models.items() if model.device.cpu is value] for value in (True, False))
    if not on or not off:
        return []
    *others, last = (("models", number - 1, "device", "cpu") for number in sorted((*on, *off)))
    are_on, are_off = (", ".join(_label(number, models[number]) for number in numbers) for numbers in (on, off))
    return [
        ConfigProblem(
            "cpu must be the same in every [models.device] that sets it: "
            f"it is true in {are_on} and false in {are_off}.",
            location=last,
            related=tuple(others),
        )
    ]


def devices_without_use(models: Mapping[int, Model]) -> list[ConfigProblem]:
    """Refuse keys that put a part of a model on an accelerator where ``cpu`` keeps all models on the CPU."""
    on_cpu = next((number for number, model in models.items() if model.device.cpu), None)
    if on_cpu is None:
        return []
    return [
        ConfigProblem(
            f"{key} {does}, and cpu = true ({_label(on_cpu, models[on_cpu])}) keeps all models on the CPU.",
            _KEEP_ONE,
            table=label(("models", "device"), number, model.model_id),
            location=("models", number - 1, "device", key),
            related=(("models", on_cpu - 1, "device", "cpu"),),
        )
        for number, model in models.items()
        for key, does in _uses_of_devices(model.device)
    ]


def _uses_of_devices(device: Device) -> Iterator[tuple[str, str]]:
    gives = "gives layers to an accelerator"
    if device.devices:
        yield "devices", "names accelerators"
    if device.n_gpu_layers:
        yield "n_gpu_layers", gives
    if any(device.device_layers or ()):
        yield "device_layers", gives
    if device.tensor_split:
        yield "tensor_split", gives
    if device.split_mode is not None:
        yield "split_mode", "divides a model between accelerators"
    if device.main_gpu is not None:
        yield "main_gpu", "names an accelerator"
    if any(place != HOST_PLACE for _, place in device.tensor_overrides):
        yield "tensor_overrides", "puts tensors on an accelerator"


def bad_placements(models: Mapping[int, Model]) -> list[ConfigProblem]:
    """Require that the keys of each ``[models.device]`` fit each other."""
    return [
        ConfigProblem(
            message,
            hint,
            table=label(("models", "device"), number, model.model_id),
            location=("models", number - 1, "device", keys[0]),
            related=tuple(("models", number - 1, "device", key) for key in keys[1:]),
        )
        for number, model in models.items()
        for message, hint, keys in _faults(model.device)
    ]


def _faults(device: Device) -> Iterator[_Fault]:
    yield from _faults_of_layers(device)
    yield from _faults_of_split(device)
    yield from _faults_of_names(device)
    for pattern, place in device.tensor_overrides:
        if fault := pattern_fault(pattern):
            message = f"tensor_overrides: {shown(pattern)} is no regular expression that llama.cpp reads: {fault}."
            yield message, "", ("tensor_overrides",)
        elif place != HOST_PLACE and device.devices and not _is_named(place, device.devices):
            message = f"tensor_overrides puts {shown(pattern)} on {shown(place)}, which devices does not name."
            yield message, 'Name it there too, or write "host".', ("tensor_overrides", "devices")
    if device.mlock and device.mmap is False:
        message = "mlock locks mapped files in memory, and mmap = false maps none."
        yield message, _KEEP_ONE, ("mlock", "mmap")


def _faults_of_layers(device: Device) -> Iterator[_Fault]:
    if device.device_layers is None:
        return
    if device.n_gpu_layers is not None:
        yield "device_layers and n_gpu_layers exclude each other.", _KEEP_ONE, ("device_layers", "n_gpu_layers")
    if device.tensor_split:
        yield "device_layers and tensor_split exclude each other.", _KEEP_ONE, ("device_layers", "tensor_split")
    given = len(device.device_layers)
    if device.devices and given > len(device.devices):
        message = f"device_layers gives layers to device {given - 1}, and devices names {len(device.devices)}."
        yield message, "The first one is device 0.", ("device_layers", "devices")
    if device.split_mode == "none" and sum(map(bool, device.device_layers)) > 1:
        message = 'device_layers divides the model, and split_mode "none" puts it on one device.'
        yield message, _KEEP_ONE, ("device_layers", "split_mode")


def _faults_of_split(device: Device) -> Iterator[_Fault]:
    parts = len(device.tensor_split)
    if parts:
        if parts < 2 or not any(device.tensor_split):
            message = "tensor_split needs a part for each of several devices, and one above 0."
            yield message, "Remove it, or name the only device in devices.", ("tensor_split",)
        elif device.devices and len(device.devices) != parts:
            message = f"tensor_split has {parts} parts, and devices names {len(device.devices)}."
            yield message, "Write one part for each device.", ("tensor_split", "devices")
        if device.split_mode == "none":
            message = 'tensor_split divides the model, and split_mode "none" puts it on one device.'
            yield message, _KEEP_ONE, ("tensor_split", "split_mode")
        if device.n_gpu_layers == 0:
            message = "tensor_split divides the layers on devices, and n_gpu_layers = 0 leaves none there."
            yield message, _KEEP_ONE, ("tensor_split", "n_gpu_layers")
    if device.main_gpu is None:
        return
    if device.split_mode not in ("none", "row"):
        message = 'main_gpu needs split_mode "none" (all on that device) or "row": whole layers have no main device.'
        yield message, "", ("main_gpu", "split_mode")
    if device.devices and device.main_gpu >= len(device.devices):
        message = f"main_gpu is {device.main_gpu}, and devices names {len(device.devices)}."
        yield message, "The first one is 0.", ("main_gpu", "devices")


def _faults_of_names(device: Device) -> Iterator[_Fault]:
    if "devices" in device.model_fields_set and not device.devices:
        message = "devices names no accelerator."
        yield message, "For the CPU alone, write cpu = true; to use all accelerators, remove it.", ("devices",)
    names = [name.lower() for name in device.devices]
    if len(set(names)) < len(names):
        yield "devices names a device twice.", "", ("devices",)
    if any(name in ("cpu", HOST_PLACE) for name in names):
        yield "devices names accelerators.", "For the CPU alone, write cpu = true.", ("devices",)


def _is_named(place: str, devices: tuple[str, ...]) -> bool:
    return place.lower() in (name.lower() for name in devices)


def _label(number: int, model: Model) -> str:
    return label(("models",), number, model.model_id)
