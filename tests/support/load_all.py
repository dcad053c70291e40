"""Load GGUF files with llama.cpp, one after the other: ``python tests/support/load_all.py FILE…``.

Prints each name before its load, so that the last one is the file on which llama.cpp ended the process.
"""

from __future__ import annotations

import ctypes
import sys

import llama_cpp.llama_cpp as lib


@lib.llama_log_callback  # type: ignore[untyped-decorator]
def silence(_level: int, _text: bytes, _user_data: object) -> None:
    """What it complains of is no matter here."""


def main(paths: list[str]) -> None:
    lib.llama_log_set(silence, ctypes.c_void_p(0))
    lib.llama_backend_init()
    for path in paths:
        print(path, flush=True)
        for vocab_only in (True, False):
            params = lib.llama_model_default_params()
            params.vocab_only = vocab_only
            model = lib.llama_model_load_from_file(path.encode(), params)
            if model is not None:
                lib.llama_model_free(model)


if __name__ == "__main__":
    main(sys.argv[1:])
