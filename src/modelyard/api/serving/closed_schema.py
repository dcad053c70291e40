"""JSON schemas whose objects have no other properties than they name.

JSON schema lets an object have properties that nobody named, and a small model that may add some goes on until it is
cut. llama.cpp's grammars read such a schema as if it let none; llguidance reads it as it is written.

A schema is closed where nothing else has a say in the same object. Where several have, as in ``allOf``, each would
refuse what the others name, and nothing would be left: those stay open, and so does all that is within them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import unquote

from modelyard.errors import InvalidRequest

# No grammar has so many rules (``guidance.compiler``), and to look at them takes 0.2 s in which nobody else is heard.
MAX_SCHEMAS: Final = 20_000

# Keywords that hold schemas, by name or else as they are, or in a list.
_DEFINITIONS = frozenset({"$defs", "definitions"})
_PROPERTIES = frozenset({"properties", "patternProperties"})
_DEPENDENT = frozenset({"dependentSchemas", "dependencies"})
_BY_NAME = _DEFINITIONS | _PROPERTIES | _DEPENDENT
_WITHIN = frozenset({"items", "prefixItems", "additionalItems", "unevaluatedItems", "contains"})
_WITHIN |= {"additionalProperties", "unevaluatedProperties", "propertyNames"}
# Schemas of the same value. Of those of _TANGLED it is not looked at how they work together.
_TANGLED = _DEPENDENT | {"if", "then", "else", "not"}
_BESIDE = _TANGLED | {"allOf", "anyOf", "oneOf"}
_HOLDING = _BY_NAME | _WITHIN | _BESIDE

# With these, more than one schema may be of the same property or item.
_OVERLAPPING = frozenset({"patternProperties", "unevaluatedProperties", "contains", "unevaluatedItems"})
# What else says something of an object, or of what is in a value.
_DEMANDS = frozenset({"required", "minProperties", "maxProperties", "dependentRequired", "enum", "const"})
_SAYING = _PROPERTIES | _WITHIN | _DEMANDS
# Who says one of these of an object has thought of other properties, or may need them.
_OPEN = _BESIDE | (_DEMANDS - {"required", "maxProperties"})
_OPEN |= {"$ref", "additionalProperties", "patternProperties", "unevaluatedProperties", "propertyNames"}

# They lead to where no pointer does.
_DYNAMIC = frozenset({"$dynamicRef", "$recursiveRef"})


class _Untraceable(Exception):
    """It is not known which schemas say something of the same value."""


def closed(schema: dict[str, Any], param: str) -> dict[str, Any]:
    """``schema``, with ``additionalProperties`` false in each object that has properties and says nothing of others.

    It may be nested as deep as it likes. One that refers to what cannot be found here is left as it is.

    Args:
        schema: not changed.
        param: the field of the request that it comes from.

    Raises:
        InvalidRequest: it has more than MAX_SCHEMAS parts.
    """
    try:
        found = _found(schema, param)
    except _Untraceable:
        return schema
    copies = {key: dict(part) for key, (part, _) in found.items()}
    for key, (part, is_shared) in found.items():
        copy = copies[key]
        for keyword in _HOLDING.intersection(part):
            copy[keyword] = _replaced(keyword, part[keyword], copies)
        if not is_shared and _can_be_closed(part):
            copy["additionalProperties"] = False
    return copies[id(schema)]


def _replaced(keyword: str, value: Any, copies: Mapping[int, Any]) -> Any:
    """What a keyword holds, with the copies of its schemas in their places."""
    if keyword in _BY_NAME:
        return {name: copies.get(id(each), each) for name, each in value.items()} if isinstance(value, dict) else value
    if isinstance(value, list):
        return [copies.get(id(each), each) for each in value]
    return copies.get(id(value), value)


def _held(keyword: str, value: Any) -> Iterable[Any]:
    """What may be schemas in ``value`` of a keyword."""
    if keyword in _BY_NAME:
        return value.values() if isinstance(value, dict) else ()
    return value if isinstance(value, list) else (value,)


def _found(root: Mapping[str, Any], param: str) -> dict[int, tuple[Mapping[str, Any], bool]]:
    """All schemas within ``root``, by their identity, and whether another may be of the same values."""
    found: dict[int, tuple[Mapping[str, Any], bool]] = {}
    waiting: list[tuple[Any, bool]] = [(root, False)]
    while waiting:
        part, is_shared = waiting.pop()
        if not isinstance(part, dict):
            continue
        _, was_shared = found.get(id(part), (part, None))
        if was_shared is not None and (was_shared or not is_shared):
            continue
        if not _DYNAMIC.isdisjoint(part) or ("$id" in part and part is not root):
            raise _Untraceable
        found[id(part)] = part, is_shared
        for child in _children(root, part, is_shared):
            waiting.append(child)
            if len(found) + len(waiting) > MAX_SCHEMAS:
                raise InvalidRequest(
                    f"{param} has more than {MAX_SCHEMAS:,} schemas in it. No grammar can be made of so many.", param
                )
    return found


def _children(root: Mapping[str, Any], part: Mapping[str, Any], is_shared: bool) -> Iterator[tuple[Any, bool]]:
    """The schemas in ``part``, and that which it refers to, and whether others may be of the same values."""
    beside = is_shared or _is_mixed(part)
    within = beside or not _OVERLAPPING.isdisjoint(part)
    if "$ref" in part:
        yield _referred(root, part["$ref"]), beside
    for keyword in _HOLDING.intersection(part):
        shared = False if keyword in _DEFINITIONS else beside if keyword in _BESIDE else within
        for each in _held(keyword, part[keyword]):
            yield each, shared


def _is_mixed(part: Mapping[str, Any]) -> bool:
    """Whether more than one schema may be of the values of ``part``, its own keywords counted as one."""
    beside = _BESIDE.intersection(part)
    if "$ref" in part:
        return bool(beside) or not _SAYING.isdisjoint(part)
    if not beside:
        return False
    all_of = part.get("allOf")
    has_several = len(beside) > 1 or (isinstance(all_of, list) and len(all_of) > 1)
    return has_several or not _TANGLED.isdisjoint(beside) or not _SAYING.isdisjoint(part)


def _can_be_closed(part: Mapping[str, Any]) -> bool:
    """Whether ``part`` has properties, says nothing of others, and needs none."""
    properties, required = part.get("properties"), part.get("required", [])
    if not isinstance(properties, dict) or not isinstance(required, list) or not _OPEN.isdisjoint(part):
        return False
    return all(isinstance(name, str) and name in properties for name in required)


def _referred(root: Mapping[str, Any], reference: Any) -> Any:
    """What a ``$ref`` means: a JSON pointer into ``root``."""
    at: Any = root
    pointer = unquote(reference) if isinstance(reference, str) else ""
    if pointer != "#" and not pointer.startswith("#/"):
        raise _Untraceable
    for step in pointer.split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(at, dict) and name in at:
            at = at[name]
        elif isinstance(at, list) and name.isdecimal() and len(name) < 9 and int(name) < len(at):
            at = at[int(name)]
        else:
            raise _Untraceable
    return at
