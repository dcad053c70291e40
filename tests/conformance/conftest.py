"""What the tests of the clients share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from modelyard.config import validate_config
from support.server import RunningServer, serving

# As reasoning models of DeepSeek's kind: the prompt opens the reasoning, the answer closes it.
THINKER_TEMPLATE = """
{%- for message in messages %}{{ '<|im_start|>' + message.role + '\n' }}
{%- if message.reasoning_content %}{{ '<think>' + message.reasoning_content + '</think>' }}{% endif %}
{{- message.content + '<|im_end|>\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}
{%- if enable_thinking is not defined or enable_thinking %}{{ '<think>\n' }}{% endif %}{% endif %}
"""


@pytest.fixture(scope="session")
def thinker(weights: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with one model that reasons, ``thinker``, and with keys: ``alice-key`` and ``bob-key``."""
    folder = tmp_path_factory.mktemp("thinker")
    template = folder / "thinker.jinja"
    template.write_text(THINKER_TEMPLATE)
    config = validate_config(
        {
            "server": {"api_keys": ["alice-key", "bob-key"]},
            "models": [
                {
                    "model_id": str(weights["smollm2"]),
                    "alias": "thinker",
                    "chat_template": str(template),
                    "device": {"max_seq_len": 1024},
                }
            ],
        },
        source="test",
        base=folder,
    )
    with serving(config) as running:
        yield running
