"""A damaged header is refused, or llama.cpp can live with it: it never ends the process."""

from __future__ import annotations

import random
import struct
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

from modelyard.errors import UnusableModel
from modelyard.hub.select.gguf import FileChoice
from modelyard.hub.select.model_files import read_files
from support.converting import WAIT_S
from support.gguf_writer import tiny_model

ROOT = Path(__file__).resolve().parents[2]
WHOLE: Final = tiny_model()
HEADER_BYTES: Final = WHOLE.index(b"blk.0.ffn_down.weight") + 80
EVIL: Final = (0, 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63, 2**64 - 1)
ACCEPTED: Final = 400


def damaged(seed: int) -> bytes:
    """The tiny model with one to three bytes changed, a number made an evil one, or bytes put in or taken out."""
    rng = random.Random(seed)
    content = bytearray(WHOLE)
    place = rng.randrange(8, HEADER_BYTES)
    match seed % 3:
        case 0:
            for _ in range(rng.randint(1, 3)):
                content[rng.randrange(8, HEADER_BYTES)] = rng.randrange(256)
        case 1:
            number = struct.pack("<Q", rng.choice(EVIL))[: rng.choice((1, 4, 8))]
            content[place : place + len(number)] = number
        case _:
            content[place : place + rng.randrange(9)] = rng.randbytes(rng.randrange(9))
    return bytes(content)


def test_what_is_accepted_never_ends_llama_cpp(tmp_path: Path):
    accepted: list[Path] = []
    seed = 0
    while len(accepted) < ACCEPTED:
        path = tmp_path / f"{seed}.gguf"
        path.write_bytes(damaged(seed))
        with suppress(UnusableModel):
            read_files(tmp_path, FileChoice((path.name,), "", None), None, "auto")
            accepted.append(path)
        seed += 1
    program = ROOT / "tests" / "support" / "load_all.py"
    loaded = subprocess.run([sys.executable, program, *accepted], capture_output=True, text=True, timeout=WAIT_S)
    assert loaded.returncode == 0, f"{loaded.stdout.splitlines()[-1]}: {loaded.stderr[-500:]}"
    assert len(loaded.stdout.splitlines()) == ACCEPTED
