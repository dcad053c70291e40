"""Draw docs/terminal.svg, the picture in the README, from a real run of the demo models.

    python scripts/terminal_picture.py      # needs the demo weights: make serve fetches them

It starts ``modelyard from-config -f examples/demo.toml`` in a terminal of its own, sends two requests
with curl and jq, and draws what was on the screen.
"""

from __future__ import annotations

import os
import subprocess
import sys

from rich.text import Text
from terminal_drawing import ROOT, draw, prompt

sys.path.insert(0, str(ROOT / "tests"))

from support.terminal import terminal

PICTURE = ROOT / "docs" / "terminal.svg"
COLUMNS, ROWS = 104, 50

SERVE = "modelyard from-config -f examples/demo.toml"
ASK = "curl -s http://127.0.0.1:1234/v1/{} -H 'Content-Type: application/json' -d '{}'"
CHAT = '{"model": "smollm2", "max_tokens": 48, "messages": [{"role": "user", "content": "Why is the sky blue?"}]}'
REQUESTS = (
    ASK.format("chat/completions", CHAT) + " | jq -r '.choices[0].message.content'",
    ASK.format("models/unload", '{"model_id": "gemma3"}'),
)
READY = "Ctrl-C stops it."


def main() -> int:
    """Run, draw, and return the exit status."""
    os.chdir(ROOT)
    with terminal(*SERVE.split()[1:], columns=COLUMNS, rows=ROWS) as server:
        server.wait_for(READY)
        # The log stays out: it says nothing about use.
        lines = [line for line in server.styled_lines if "INFO" not in line.plain]
        for command in REQUESTS:
            done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
            lines += [Text(), prompt(command), Text(done.stdout.strip())]
        server.type("\x03")
        server.end()
    draw(PICTURE, [prompt(SERVE), *lines], columns=COLUMNS, title="modelyard")
    return 0


if __name__ == "__main__":
    sys.exit(main())
