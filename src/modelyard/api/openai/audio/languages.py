"""English names of languages by their codes, for prompts."""

from __future__ import annotations

from typing import Final

from modelyard.errors import InvalidRequest

# The languages that speech models support. Source: ISO 639-1, and ISO 639-3 for Cantonese.
_NAMES: Final = {
    "af": "Afrikaans", "ar": "Arabic", "az": "Azerbaijani", "be": "Belarusian", "bg": "Bulgarian", "bn": "Bengali",
    "bs": "Bosnian", "ca": "Catalan", "cs": "Czech", "cy": "Welsh", "da": "Danish", "de": "German", "el": "Greek",
    "en": "English", "es": "Spanish", "et": "Estonian", "eu": "Basque", "fa": "Persian", "fi": "Finnish",
    "fr": "French", "gl": "Galician", "gu": "Gujarati", "he": "Hebrew", "hi": "Hindi", "hr": "Croatian",
    "hu": "Hungarian", "hy": "Armenian", "id": "Indonesian", "is": "Icelandic", "it": "Italian", "ja": "Japanese",
    "ka": "Georgian", "kk": "Kazakh", "kn": "Kannada", "ko": "Korean", "lt": "Lithuanian", "lv": "Latvian",
    "mi": "Maori", "mk": "Macedonian", "ml": "Malayalam", "mr": "Marathi", "ms": "Malay", "ne": "Nepali",
    "nl": "Dutch", "no": "Norwegian", "pa": "Punjabi", "pl": "Polish", "pt": "Portuguese", "ro": "Romanian",
    "ru": "Russian", "sk": "Slovak", "sl": "Slovenian", "sr": "Serbian", "sv": "Swedish", "sw": "Swahili",
    "ta": "Tamil", "te": "Telugu", "th": "Thai", "tl": "Filipino", "tr": "Turkish", "uk": "Ukrainian", "ur": "Urdu",
    "vi": "Vietnamese", "yue": "Cantonese", "zh": "Chinese",
}  # fmt: skip
_CODES: Final = {name.lower(): code for code, name in _NAMES.items()}


def language_code(language: str, param: str = "language") -> str:
    """Return the code of a language that is given by its code, such as "en" or "en-GB", or by its English name.

    Raises:
        InvalidRequest: the language is not known.
    """
    name = language.strip().lower()
    code = _CODES.get(name, name.replace("_", "-").partition("-")[0])
    if code not in _NAMES:
        raise InvalidRequest(
            f"'{param}': '{language[:40]}' is not a known language. Send its ISO 639-1 code, such as 'en', "
            "or leave it out.",
            param,
        )
    return code


def language_name(code: str) -> str:
    """Return the English name of the language of that code."""
    return _NAMES[code]
