"""Draw docs/terminal-chat.svg, the picture of a chat in the terminal, from a real run of a demo model.

    python scripts/record_terminal.py      # needs the demo weights: make serve fetches them

It starts ``modelyard run`` in a terminal of its own, types a chat, and draws what is then on the screen.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from demo_weights import prepare
from terminal_drawing import ROOT, draw, prompt

sys.path.insert(0, str(ROOT / "tests"))

from support.terminal import terminal

PICTURE = ROOT / "docs" / "terminal-chat.svg"
COLUMNS, ROWS = 88, 40

# Typed one after the other, each when the text behind it has come.
CHAT = (
    ("/set temperature 0", "temperature: 0"),
    ("/set max_tokens 90", "max_tokens: 90"),
    ("Write a Python function that adds two numbers. Keep it short.", "tokens/s"),
    ("/stat", "/stats?"),
    ("/tokens", "tokens of"),
)


def main() -> int:
    """Run, draw, and return the exit status."""
    model = prepare(ROOT / ".weights")["smollm2"]
    with TemporaryDirectory() as folder:
        (Path(folder) / "smollm2.gguf").symlink_to(model)
        os.chdir(folder)
        command = ("run", "./smollm2.gguf", "--local", "--verbose")
        with terminal(*command, columns=COLUMNS, rows=ROWS, XDG_STATE_HOME=folder, MODELYARD_NO_HISTORY="1") as shown:
            shown.wait_for(">>> ")
            for line, answer in CHAT:
                before = len(shown.lines)
                shown.enter(line)
                shown.wait_for(answer, after=before - 1)
            shown.enter("/bye")
            shown.end()
            lines = shown.styled_lines
    draw(PICTURE, [prompt(f"modelyard {' '.join(command)}"), *lines], columns=COLUMNS, title="modelyard run")
    return 0


if __name__ == "__main__":
    sys.exit(main())
