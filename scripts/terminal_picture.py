"""Draw docs/terminal.svg, the picture in the README, from a real run of the demo models.

    python scripts/terminal_picture.py      # needs the demo weights: make serve fetches them

It starts ``modelyard from-config -f examples/demo.toml`` in a terminal of its own, sends two requests
with curl and jq, and draws what was on the screen.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).parent.parent
PICTURE = ROOT / "docs" / "terminal.svg"
COLUMNS, ROWS = 104, 50
WAIT_S = 120.0

SERVE = "modelyard from-config -f examples/demo.toml"
ASK = "curl -s http://127.0.0.1:1234/v1/{} -H 'Content-Type: application/json' -d '{}'"
CHAT = '{"model": "smollm2", "max_tokens": 48, "messages": [{"role": "user", "content": "Why is the sky blue?"}]}'
REQUESTS = (
    ASK.format("chat/completions", CHAT) + " | jq -r '.choices[0].message.content'",
    ASK.format("models/unload", '{"model_id": "gemma3"}'),
)
READY = "Ctrl-C stops it."


class Screen:
    """The lines of a terminal, as far as Rich's progress bars move the cursor: up, to the left, and over old text."""

    def __init__(self) -> None:
        self.lines = [""]
        self._row = 0

    def feed(self, text: str) -> None:
        """Write text with escape sequences; colours stay in the lines."""
        for part in re.findall(r"\x1b\[\??[0-9;]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", text):
            if part == "\n":
                self._row += 1
                if self._row == len(self.lines):
                    self.lines.append("")
            elif part.endswith("A") and part[0] == "\x1b":
                self._row -= int(part[2:-1] or 1)
            elif part.endswith("K") and part[0] == "\x1b":
                self.lines[self._row] = ""
            elif part != "\r" and (part[0] != "\x1b" or part.endswith("m")):
                self.lines[self._row] += part


def main() -> int:
    """Run, draw, and return the exit status."""
    output, answers = run()
    screen = Screen()
    screen.feed(output)
    console = Console(record=True, width=COLUMNS, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
    console.print(f"[bold green]$[/] {SERVE}", highlight=False)
    # Bars of the load, which end at 100 %, and the log stay out: they say nothing about use.
    kept = [line for line in screen.lines if not re.search("━|INFO", line)]
    console.print(Text.from_ansi("\n".join(kept).strip("\n") + "\n"))
    for command, answer in zip(REQUESTS, answers, strict=True):
        console.print(Text.assemble(("$ ", "bold green"), command))
        if answer.strip():
            console.print(Text(f"{answer.strip()}\n"))
    picture = console.export_svg(title="modelyard")
    # Fonts that a browser would fetch from elsewhere.
    PICTURE.write_text(re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL), "utf-8")
    print(f"Wrote {PICTURE.relative_to(ROOT)}")
    return 0


def run() -> tuple[str, list[str]]:
    """Serve the demo models, and return what the terminal showed and what the requests were answered."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    server = subprocess.Popen(
        [sys.executable, "-m", *SERVE.split()], cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs, process_group=0
    )
    os.close(theirs)
    try:
        output = _until_ready(ours)
        done = [subprocess.run(each, shell=True, capture_output=True, text=True, check=True) for each in REQUESTS]
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(WAIT_S)
        os.close(ours)
    return output, [each.stdout for each in done]


def _until_ready(terminal: int) -> str:
    output, deadline = b"", time.monotonic() + WAIT_S
    while READY.encode() not in output:
        if not select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise TimeoutError(f"The server was not ready within {WAIT_S:.0f} s")
        output += os.read(terminal, 65536)
    return output.decode(errors="replace")


if __name__ == "__main__":
    sys.exit(main())
