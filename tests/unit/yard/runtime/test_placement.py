"""The settings of devices and sequences, as they reach a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from modelyard.config import Config, validate_config
from modelyard.errors import ConfigError
from modelyard.hub import ModelFiles, read_header
from modelyard.yard.from_config import WAITING_ROOM, model_policy
from modelyard.yard.runtime.model_spec import footprint_of
from modelyard.yard.yard import Yard
from support.gguf_writer import tiny_model, write


def config(**device: Any) -> Config:
    model = {"model_id": "org/tiny", "load": "on-demand", "device": device}
    return validate_config({"models": [model], "runtime": {"max_seqs": 8}})


async def test_layers_for_a_device_that_is_not_there_are_an_error_at_the_start_also_of_a_model_that_loads_later():
    yard = Yard(config(device_layers=["15:9"]))
    with pytest.raises(ConfigError, match=r"model 'org/tiny': device_layers or n_gpu_layers gives "):
        await yard.start()


async def test_no_layers_need_no_device():
    yard = Yard(config(device_layers=0))
    await yard.start()
    await yard.close()


def test_a_models_own_number_of_requests_bounds_what_is_let_in_and_what_it_takes(tmp_path: Path):
    header = read_header(write(tmp_path / "tiny.gguf", tiny_model()))
    files = ModelFiles((tmp_path / "tiny.gguf",), header, header.file_size, "", "F16")

    def taken(chosen: Config) -> int:
        return footprint_of(chosen, chosen.models[0], files).total_bytes

    common, own = config(), config(max_batch_size=2)
    assert model_policy(common, common.models[0]).max_requests == 8 + WAITING_ROOM
    assert model_policy(own, own.models[0]).max_requests == 2 + WAITING_ROOM
    assert taken(own) < taken(common)
