"""The kinds of cases, by the names that ``make fuzz`` has for them."""

from collections.abc import Mapping
from typing import Final

from fuzz.case import Kind
from fuzz.grammars import play_grammar
from fuzz.headers import play_header
from fuzz.heads import play_head
from fuzz.messages import play_messages
from fuzz.settings import play_settings
from fuzz.texts import play_text

KINDS: Final[Mapping[str, Kind]] = {
    "headers": play_header,
    "texts": play_text,
    "settings": play_settings,
    "messages": play_messages,
    "grammars": play_grammar,
    "heads": play_head,
}
