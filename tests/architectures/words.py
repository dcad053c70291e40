"""The texts that every model is asked to continue, of plain words that every tokenizer knows."""

from __future__ import annotations

from typing import Final

_TEXT: Final = (
    "the quick brown fox jumps over a lazy dog while seven small boats sail along the quiet river and children "
    "play near old stone walls under a bright morning sun as farmers carry fresh bread from the village market to "
    "their homes where warm fires burn and people tell long stories about distant lands and great heroes who "
    "crossed wide seas in search of gold and freedom but found only wind and salt and the slow turning stars that "
    "guided them back again to the place where they were born many years before the war had taken everything"
)
WORDS: Final = _TEXT.split()

_THERE_AND_BACK: Final = WORDS + WORDS[::-1]
LONG: Final = " ".join(_THERE_AND_BACK)

# By what they try: a few tokens; more than a window of 64; the long one left half way; and the long one continued.
PROMPTS: Final = {
    "short": " ".join(WORDS[:9]),
    "long": LONG,
    "branch": " ".join(_THERE_AND_BACK[:70]) + " however nobody knew what would happen next in town",
    "extend": LONG + " and then the story went on for a while",
}
