"""Closes JSON schemas, so that their objects have only the properties that they name.

JSON schema allows further properties by default, and a small model that may add properties goes on until its tokens run
out. The grammars of llama.cpp, Ollama and vLLM allow no further properties; llguidance follows the standard.

An object's schema is closed if it alone applies to that object. If several schemas apply, as in ``allOf``, each closed
one would refuse the properties of the others. Those schemas stay open, and so do all schemas within them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import unquote

from modelyard.errors import InvalidRequest

# A grammar has fewer rules (``guidance.compiler``), and walking this many schemas blocks the event loop for 0.2 s.
MAX_SCHEMAS: Final = 20_000

# Keywords that hold schemas: in a mapping, or directly or in a list.
_DEFINITIONS = frozenset({"$defs", "definitions"})
_PROPERTIES = frozenset({"properties", "patternProperties"})
_DEPENDENT = frozenset({"dependentSchemas", "dependencies"})
_BY_NAME = _DEFINITIONS | _PROPERTIES | _DEPENDENT
_WITHIN = frozenset({"items", "prefixItems", "additionalItems", "unevaluatedItems", "contains"})
_WITHIN |= {"additionalProperties", "unevaluatedProperties", "propertyNames"}
# Keywords whose schemas apply to the same value. How the schemas of _TANGLED combine is not analysed.
_TANGLED = _DEPENDENT | {"if", "then", "else", "not"}
_BESIDE = _TANGLED | {"allOf", "anyOf", "oneOf"}
_HOLDING = _BY_NAME | _WITHIN | _BESIDE

# With these keywords, more than one schema may apply to the same property or item.
_OVERLAPPING = frozenset({"patternProperties", "unevaluatedProperties", "contains", "unevaluatedItems"})
# Keywords without schemas that constrain an object.
_CONSTRAINTS = frozenset({"required", "minProperties", "maxProperties", "dependentRequired", "enum", "const"})
_CONSTRAINING = _PROPERTIES | _WITHIN | _CONSTRAINTS
# An object with one of these keywords handles further properties itself, or may need them.
_OPEN = _BESIDE | (_CONSTRAINTS - {"required", "maxProperties"})
_OPEN |= {"$ref", "additionalProperties", "patternProperties", "unevaluatedProperties", "propertyNames"}

# References whose target depends on the path of evaluation.
_DYNAMIC = frozenset({"$dynamicRef", "$recursiveRef"})


class _Untraceable(Exception):
    """The schemas that apply to the same value cannot be determined."""


def closed(schema: dict[str, Any], param: str) -> dict[str, Any]:
    """Return ``schema`` with ``additionalProperties`` false in each object that has properties and allows no others.

    The schema may be nested to any depth. A schema with references that cannot be resolved is returned unchanged.

    Args:
        schema: the schema, which is not modified.
        param: the field of the request that it comes from.

    Raises:
        InvalidRequest: the schema has more than MAX_SCHEMAS parts.
    """
    try:
        found = _collect(schema, param)
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
    """Return the value of a keyword with copies in place of its schemas."""
    if keyword in _BY_NAME:
        return {name: copies.get(id(each), each) for name, each in value.items()} if isinstance(value, dict) else value
    if isinstance(value, list):
        return [copies.get(id(each), each) for each in value]
    return copies.get(id(value), value)


def _held(keyword: str, value: Any) -> Iterable[Any]:
    """Return the candidates for schemas in the value of a keyword."""
    if keyword in _BY_NAME:
        return value.values() if isinstance(value, dict) else ()
    return value if isinstance(value, list) else (value,)


def _collect(root: Mapping[str, Any], param: str) -> dict[int, tuple[Mapping[str, Any], bool]]:
    """Return all schemas within ``root`` by identity, and whether another schema may apply to the same values."""
    found: dict[int, tuple[Mapping[str, Any], bool]] = {}
    stack: list[tuple[Any, bool]] = [(root, False)]
    while stack:
        part, is_shared = stack.pop()
        if not isinstance(part, dict):
            continue
        _, was_shared = found.get(id(part), (part, None))
        if was_shared is not None and (was_shared or not is_shared):
            continue
        if not _DYNAMIC.isdisjoint(part) or ("$id" in part and part is not root):
            raise _Untraceable
        found[id(part)] = part, is_shared
        for child in _children(root, part, is_shared):
            stack.append(child)
            if len(found) + len(stack) > MAX_SCHEMAS:
                raise InvalidRequest(
                    f"{param} has more than {MAX_SCHEMAS:,} schemas in it. No grammar can be made of so many.", param
                )
    return found


def _children(root: Mapping[str, Any], part: Mapping[str, Any], is_shared: bool) -> Iterator[tuple[Any, bool]]:
    """Yield the schemas in ``part`` and its reference, and whether others may apply to the same values."""
    beside = is_shared or _is_mixed(part)
    within = beside or not _OVERLAPPING.isdisjoint(part)
    if "$ref" in part:
        yield _resolve(root, part["$ref"]), beside
    for keyword in _HOLDING.intersection(part):
        shared = False if keyword in _DEFINITIONS else beside if keyword in _BESIDE else within
        for each in _held(keyword, part[keyword]):
            yield each, shared


def _is_mixed(part: Mapping[str, Any]) -> bool:
    """Whether more than one schema may apply to the values of ``part``; its own keywords count as one."""
    beside = _BESIDE.intersection(part)
    if "$ref" in part:
        return bool(beside) or not _CONSTRAINING.isdisjoint(part)
    if not beside:
        return False
    all_of = part.get("allOf")
    has_several = len(beside) > 1 or (isinstance(all_of, list) and len(all_of) > 1)
    return has_several or not _TANGLED.isdisjoint(beside) or not _CONSTRAINING.isdisjoint(part)


def _can_be_closed(part: Mapping[str, Any]) -> bool:
    """Whether ``part`` has properties, and neither constrains nor requires others."""
    properties, required = part.get("properties"), part.get("required", [])
    if not isinstance(properties, dict) or not isinstance(required, list) or not _OPEN.isdisjoint(part):
        return False
    return all(isinstance(name, str) and name in properties for name in required)


def _resolve(root: Mapping[str, Any], reference: Any) -> Any:
    """Return the target of a ``$ref``, a JSON pointer into ``root``."""
    target: Any = root
    pointer = unquote(reference) if isinstance(reference, str) else ""
    if pointer != "#" and not pointer.startswith("#/"):
        raise _Untraceable
    for step in pointer.split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(target, dict) and name in target:
            target = target[name]
        elif isinstance(target, list) and name.isdecimal() and len(name) < 9 and int(name) < len(target):
            target = target[int(name)]
        else:
            raise _Untraceable
    return target
