"""Where a model is put, in a few words. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from modelyard.formats.gguf.header import GgufHeader
from modelyard.protocol.placement import HOST_NAME, Placement
from modelyard.yard.memory.footprint import Footprint
from modelyard.yard.memory.layer_shapes import layer_count
from modelyard.yard.residency.state import ModelState, Residency


def placement_text(placement: Placement, layers: int | None = None) -> str:
    """Return where a placement puts a model, such as "CUDA0+CUDA1 60:40, 12 of 33 layers", or "host".

    It is "" for a placement that leaves open which devices are used.

    Args:
        placement: with names of devices.
        layers: of the model, the output included, which counts as a layer behind the others; None: unknown.
    """
    if placement.devices is None:
        return ""
    if not placement.devices:
        return HOST_NAME
    return ", ".join((_devices(placement), *_on_host(placement, layers)))


def planned_text(footprint: Footprint, header: GgufHeader) -> str:
    """Return where a model is planned to be, in words; what takes no memory of a device is on the host."""
    layers = layer_count(header) + 1 if header.block_count else None
    return placement_text(footprint.placement, layers) if footprint.devices else HOST_NAME


def placement_of_model(state: Residency, model: ModelState, layers: int | None = None) -> str:
    """Return where a model is that takes memory, in words; "" for others, and on a machine without devices."""
    if not model.is_resident or model.footprint is None:
        return ""
    return text_beside_devices(state, model.footprint.placement, layers)


def text_beside_devices(state: Residency, placement: Placement, layers: int | None = None) -> str:
    """Return the placement in words; "" for the host of a machine without devices, where there is no other place."""
    return placement_text(placement, layers) if placement.devices or state.device_budgets else ""


def _devices(placement: Placement) -> str:
    names = placement.devices or ()
    if placement.split_mode == "none":
        return names[placement.main_device] if placement.main_device < len(names) else names[0]
    if not any(placement.split):
        named = "+".join(names)
    else:
        given = [(name, part) for name, part in zip(names, placement.split, strict=False) if part > 0]
        named = "+".join(name for name, _ in given)
        if len(given) > 1:
            named += f" {':'.join(map(str, percents([part for _, part in given])))}"
    return f"{named} by rows" if placement.split_mode == "row" else named


def percents(parts: Sequence[float]) -> list[int]:
    """Return parts, of which one is more than 0, as whole percents that add up to 100.

    The largest remainders are rounded up.
    """
    exact = [100 * part / sum(parts) for part in parts]
    whole = [int(percent) for percent in exact]
    by_remainder = sorted(range(len(parts)), key=lambda n: whole[n] - exact[n])
    for n in by_remainder[: 100 - sum(whole)]:
        whole[n] += 1
    return whole


def _on_host(placement: Placement, layers: int | None) -> Iterator[str]:
    on_devices = placement.gpu_layers
    if on_devices is not None and layers is None:
        yield f"{on_devices} layers"
    elif on_devices is not None and layers is not None and on_devices < layers:
        yield f"{on_devices} of {layers} layers"
    if experts := placement.cpu_moe_layers:
        # The output, which counts as the last layer, has no experts.
        has_all = layers is not None and experts >= layers - 1
        count = "1 layer" if experts == 1 else f"{experts} layers"
        yield "experts on the host" if has_all else f"experts of {count} on the host"
    if placement.tensor_overrides:
        yield "some tensors elsewhere"
    if placement.kv_on_host:
        yield "KV cache on the host"
