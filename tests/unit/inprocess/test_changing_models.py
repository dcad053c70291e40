"""Models that are added and removed while others answer."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from modelyard import ModelBuilder
from modelyard.errors import ConfigError, InvalidRequest, ModelLoadFailed, ModelNotFound, ModelRequired
from support.models_in_process import WAIT_S, model_of, texts, two
from support.scripted_engines import ScriptedEngines


def test_models_come_and_go_while_others_stream(tiny: Callable[[], ModelBuilder], engines: ScriptedEngines) -> None:
    with model_of(two(tiny), engines) as model, model.stream_chat_request_with_model("Hi", "a") as stream:
        next(stream)
        model.add_model_with_alias("c", tiny())
        assert model.list_models_with_status() == [("a", "loaded"), ("b", "loaded"), ("c", "loaded")]
        model.set_default_model_id("c")
        model.remove_model("a")
        model.remove_model("b")
        assert (model.list_models(), model.get_default_model_id()) == (["c"], "c")
        engine = engines.started("a")
        engine.say("still here")
        engine.finish()
        assert texts(stream) == ["still here", ""]
        with pytest.raises(InvalidRequest, match="the only model"):
            model.remove_model("c")
        with pytest.raises(ModelNotFound, match="Known: c"):
            model.remove_model("a")


def test_without_its_default_a_request_must_name_its_model(
    tiny: Callable[[], ModelBuilder], engines: ScriptedEngines
) -> None:
    with model_of(two(tiny).add_model_with_alias("c", tiny()), engines) as model:
        model.remove_model("a")
        assert model.get_default_model_id() is None
        with pytest.raises(ModelRequired, match="b, c"):
            model.send_chat_request("Hi")


def test_what_cannot_be_added_changes_nothing(
    tiny: Callable[[], ModelBuilder], engines: ScriptedEngines, tmp_path: Path
) -> None:
    with model_of(two(tiny), engines) as model:
        with pytest.raises(ConfigError, match="does not exist"):
            model.add_model(ModelBuilder(tmp_path / "nowhere.gguf"))
        with pytest.raises(ConfigError, match="'b' belongs to more than one"):
            model.add_model_with_alias("b", tiny())
        engines.loads = False
        with ThreadPoolExecutor() as pool:
            adding = pool.submit(model.add_model_with_alias, "c", tiny())
            engines.started("c").fail_load("it is odd")
            with pytest.raises(ModelLoadFailed, match="it is odd"):
                adding.result(WAIT_S)
        assert model.list_models() == ["a", "b"]
        assert len(engines.of("c")) == 1
