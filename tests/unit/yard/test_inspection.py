"""Plans of whole configurations, with devices that exist only on paper."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard.config import Model, validate_config
from modelyard.engine.placing import LlamaDevice
from modelyard.errors import ConfigError
from modelyard.yard.inspection import inspect_models
from modelyard.yard.runtime import configured_devices
from modelyard.yard.runtime.configured_devices import list_budgeted_devices
from support.gguf_writer import U32, tiny_model, write

GPU = LlamaDevice("GPU0", "a card", "gpu", free_bytes=2**30, total_bytes=2**30, backend="CUDA")


def test_models_are_planned_on_a_device_while_it_has_room_and_then_on_the_host(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / f"{name}.gguf", tiny_model({"llama.context_length": (U32, 8192)}))
    models = [{"model_id": f"./{name}.gguf", "alias": name, "device": {"max_seq_len": 8192}} for name in ("a", "b")]
    config = validate_config({"models": models, "memory": {"budget": "1GB"}}, source="test", base=tmp_path)
    wide = inspect_models(config, devices=(GPU,), budgets_of_devices={"GPU0": 2**30})
    assert [model.placement for model in wide.models] == ["GPU0", "GPU0"]
    taken = wide.models[0].pool_bytes["GPU0"]
    assert wide.startup_pools["GPU0"] == 2 * taken
    assert wide.models[0].memory_bytes == sum(wide.models[0].pool_bytes.values())
    narrow = inspect_models(config, devices=(GPU,), budgets_of_devices={"GPU0": taken + 1_000_000})
    assert narrow.models[0].placement == "GPU0"
    assert narrow.models[1].pool_bytes["host"] > wide.models[1].pool_bytes["host"]
    assert narrow.startup_pools["GPU0"] <= taken + 1_000_000
    assert all(model.is_resident for model in narrow.models)
    host = inspect_models(config)
    assert [(model.placement, set(model.pool_bytes)) for model in host.models] == [("host", {"host"})] * 2
    assert all(model.tokens_per_s for model in (*wide.models, *host.models))


@pytest.mark.parametrize(("has_any", "listed"), [(True, r"0 \(GPU0\)"), (False, "none")])
def test_a_budget_of_a_device_that_does_not_exist_is_refused_as_at_the_start(
    has_any: bool, listed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(configured_devices, "may_have_accelerators", lambda: has_any)
    monkeypatch.setattr(configured_devices, "list_devices", lambda: (GPU,))
    models = [{"model_id": str(write(tmp_path / "a.gguf", tiny_model()))}]
    config = validate_config({"models": models, "memory": {"devices": {"GPU1": "1GiB", "gpu0": 0.5}}})
    with pytest.raises(ConfigError, match=f"'GPU1', which does not exist. There are: {listed}"):
        list_budgeted_devices(config)
    on_host = config.model_copy(update={"models": (with_cpu(config.models[0]),)})
    assert list_budgeted_devices(on_host) == ((), {})


def with_cpu(model: Model) -> Model:
    return model.model_copy(update={"device": model.device.model_copy(update={"cpu": True})})
