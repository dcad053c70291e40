"""``modelyard tune``: what the types of a model take and give on this machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from modelyard.cli import app
from modelyard.cli.exit_codes import MODEL
from modelyard.engine.hosts.speed_trial import SpeedTask, measure_speed
from modelyard.errors import UnusableModel
from modelyard.formats.gguf.read import read_header
from modelyard.protocol.placement import ON_HOST
from modelyard.yard.memory.layer_shapes import stand_in_shapes


def test_the_speed_of_a_file_is_measured_on_a_few_layers(weights: dict[str, Path]) -> None:
    done = CliRunner().invoke(app, ["tune", str(weights["smollm2"]), "--json"])
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)
    (only,) = facts["types"]
    assert (only["label"], only["is_fitting"], only["problem"]) == ("Q4_1", True, "")
    # SmolLM2 has 135 M parameters: on any machine that runs tests a token takes between a millisecond and a second.
    assert 1 < only["tokens_per_s"] < 1000
    assert facts["recommended"] == 0


def test_each_type_of_a_checkpoint_is_sized(checkpoint: Path) -> None:
    done = CliRunner().invoke(app, ["tune", str(checkpoint), "--no-measure", "--json"])
    assert done.exit_code == 0, done.output
    types = json.loads(done.stdout)["types"]
    assert [each["label"] for each in types] == ["BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q3_K_M", "Q2_K"]
    sizes = [each["memory_bytes"] for each in types]
    assert sizes == sorted(sizes, reverse=True)
    table = CliRunner().invoke(app, ["tune", str(checkpoint), "--no-measure", "--profile", "quality"])
    assert "BF16: the most bits per weight that fit the memory." in table.stdout


def test_what_cannot_be_tuned_says_why(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["tune", str(tmp_path / "none.gguf")])
    assert done.exit_code == MODEL
    assert "none.gguf" in done.output


def test_a_measurement_can_be_ended(weights: dict[str, Path]) -> None:
    shapes = stand_in_shapes(read_header(weights["smollm2"]))
    assert shapes is not None
    with pytest.raises(UnusableModel, match="Q4_1 cannot be measured"):
        measure_speed(SpeedTask(shapes, "Q4_1", None, ON_HOST), goes_on=lambda: False)
