"""How many layers go to which device, as people write it."""

import pytest

from modelyard.config import validate_config
from modelyard.errors import ConfigError


def layers(written):
    (model,) = validate_config({"models": [{"model_id": "org/a", "device": {"device_layers": written}}]}).models
    return model.device.device_layers


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (20, (20,)),
        (0, (0,)),
        (["0:20"], (20,)),
        (["0:20", " 2 : 5 "], (20, 0, 5)),
        (["1:12", "0:20"], (20, 12)),
        (None, None),
    ],
)
def test_layers_are_given_to_devices_by_number(written, meant):
    assert layers(written) == meant


@pytest.mark.parametrize("written", [-1, 513, True, 1.5, "20", [], ["20"], ["a:b"], ["0:1", "0:2"], ["16:1"], [7]])
def test_anything_else_says_what_to_write(written):
    with pytest.raises(ConfigError) as refused:
        layers(written)
    (problem,) = refused.value.problems
    assert str(problem).startswith(
        "[models.device] of model 1 ('org/a'): device_layers must be a number of layers for device 0, or a list such "
        'as ["0:20", "1:12"], each device once'
    )
