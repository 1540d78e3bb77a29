"""YAML -> plain data -> frozen dataclasses, with every mistake named by its key."""

from __future__ import annotations

import dataclasses
import math
import re
import reprlib
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from effstilts.errors import RecipeError, did_you_mean, said_by

MAX_NODES = 100_000  # aliases expanded
MAX_WRITTEN = 10_000  # values and keys as they stand in the text: some tenths of a second
MAX_NUMBER = 64  # characters; YAML's base 60 takes quadratic time
_TAGS = [f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "seq")]
# Control characters steer a terminal, half a surrogate pair is no text.
_NO_TEXT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


def parse_yaml(text: str, where: str) -> Any:
    """YAML as mappings, lists, texts, numbers, booleans and nothing else: no tags (dates stay texts), no merge keys,
    no repeated keys, and a bound on the expanded size (alias bombs)."""
    import yaml

    loader = _loader(where)
    try:
        tree = yaml.load(text, loader)  # noqa: S506 - a subclass of SafeLoader
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = "it is nested too deeply" if isinstance(error, RecursionError) else getattr(error, "problem", None)
        quote = "; put texts with braces in quotes" if re.search(r"\{\w+\}", text) else ""
        raise RecipeError(f"{where}{line}: not valid YAML: {problem or said_by(error)[0]}{quote}") from error
    budget = MAX_NODES
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        budget -= 1
        if budget < 0:
            raise RecipeError(f"{where}: expands to more than {MAX_NODES} values")
        if isinstance(node, dict):
            waiting.extend(node.values())
            waiting.extend(node)
        elif isinstance(node, list):
            waiting.extend(node)
        elif isinstance(node, str) and (odd := _NO_TEXT.search(node)):
            raise RecipeError(f"{where}: the control character {odd[0]!r} stands in {shown(node)}")
        elif isinstance(node, int) and abs(node) >= 1 << 63:
            raise RecipeError(f"{where}: a number is beyond 64 bits")
        elif isinstance(node, float) and not math.isfinite(node):
            raise RecipeError(f"{where}: {node} is no number to compute with")
    return tree


def _loader(where: str) -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        yaml_constructors = {  # noqa: RUF012 - PyYAML's own way
            tag: yaml.SafeLoader.yaml_constructors[tag] for tag in (*_TAGS, None)
        }
        yaml_implicit_resolvers = {  # noqa: RUF012
            first: [(tag, form) for tag, form in known if not tag.endswith((":timestamp", ":value"))]
            for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

        written = 0

        def compose_node(self, parent: Any, index: Any) -> Any:
            self.written += 1
            if self.written > MAX_WRITTEN:
                raise RecipeError(f"{where}: more than {MAX_WRITTEN} values")
            return super().compose_node(parent, index)

    def refuse(node: yaml.Node, what: str) -> None:
        raise RecipeError(f"{where}, line {node.start_mark.line + 1}: {what}")

    def mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
        found: set[str] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                refuse(key_node, "merge keys (<<) are not read; write the keys out")
            key = loader.construct_object(key_node)
            if not isinstance(key, str):
                refuse(node, f"the key {shown(key)} is not text; quote it")
            if key in found:
                refuse(node, f"the key {shown(key)} stands twice")
            found.add(key)
        return loader.construct_mapping(node, deep=True)

    def number(of: Any) -> Any:
        def construct(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> Any:
            if len(node.value) > MAX_NUMBER:
                refuse(node, f"a number has {len(node.value)} characters, at most {MAX_NUMBER} are read")
            return of(loader, node)

        return construct

    Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    for name in ("int", "float"):
        tag = f"tag:yaml.org,2002:{name}"
        Loader.add_constructor(tag, number(Loader.yaml_constructors[tag]))
    return Loader


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 120


def shown(value: Any) -> str:
    """The value as one short piece of a message."""
    return _SHORT.repr(value)


def apply_override(
    tree: dict[str, Any], override: str, stands_for: Callable[[Sequence[str]], str] = lambda _: ""
) -> None:
    """Sets `a.b.c=VALUE` in the tree; VALUE is YAML. List items are named by their index. stands_for: of a place in the
    tree, the key that a bare text there stands for; empty where it is but a text."""
    key, sign, text = override.partition("=")
    if not sign or not key:
        raise RecipeError(f"--set {override}: write key=value, for example --set training.steps=100")
    value = parse_yaml(text, f"--set {key}")
    node: Any = tree
    parts = key.split(".")
    for depth, part in enumerate(parts[:-1], 1):
        own = _index(node, part, key) if isinstance(node, list) else part
        if isinstance(node, dict) and node.get(part) is None:
            node[part] = {}
        if isinstance(node[own], str) and (name := stands_for(parts[:depth])):
            node[own] = {name: node[own]}
        node = node[own]
        if not isinstance(node, dict | list):
            raise RecipeError(f"--set {key}: {part!r} is a plain value, it has no keys")
    if isinstance(node, list):
        node[_index(node, parts[-1], key)] = value
    else:
        node[parts[-1]] = value


def _index(items: list[Any], part: str, key: str) -> int:
    if not part.isdecimal() or int(part) >= len(items):
        raise RecipeError(f"--set {key}: {part!r} is not an index into a list of {len(items)}")
    return int(part)


def decode(kind: Any, value: Any, where: str, path: str = "", shorthands: Mapping[type, str] | None = None) -> Any:
    """Plain data as `kind` (dataclasses, tuples, mappings, literals, scalars), or a RecipeError that names the key and
    what was expected. shorthands: for a dataclass, the field that a bare text stands for."""
    shorthands = shorthands or {}
    at = f"{where}: {path}" if path else where
    origin, arguments = get_origin(kind), get_args(kind)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if isinstance(value, str) and kind in shorthands:
            value = {shorthands[kind]: value}
        if value is None:
            value = {}
        if not isinstance(value, Mapping):
            raise RecipeError(f"{at}: expected a mapping with keys {', '.join(_names(kind))}, got {shown(value)}")
        hints = get_type_hints(kind)
        for key in value:
            if key not in hints:
                hint = did_you_mean(str(key), hints)
                raise RecipeError(f"{at}: unknown key {shown(key)}{hint}; known keys: {', '.join(_names(kind))}")
        for needed in dataclasses.fields(kind):
            if (
                needed.default is dataclasses.MISSING
                and needed.default_factory is dataclasses.MISSING
                and value.get(needed.name) is None
            ):
                raise RecipeError(f"{at}: the key {needed.name!r} is missing")
        parts = {
            key: decode(hints[key], item, where, f"{path}.{key}" if path else str(key), shorthands)
            for key, item in value.items()
            if item is not None
        }
        return kind(**parts)
    if kind is Any:
        return value
    if origin in (Union, types.UnionType):
        return decode(next(a for a in arguments if a is not type(None)), value, where, path, shorthands)
    if origin is Literal:
        if value not in arguments:
            hint = did_you_mean(str(value), map(str, arguments))
            raise RecipeError(f"{at}: {shown(value)} is not one of {', '.join(map(str, arguments))}{hint}")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            value = [value]
        return tuple(decode(arguments[0], item, where, f"{path}[{i}]", shorthands) for i, item in enumerate(value))
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise RecipeError(f"{at}: expected a mapping, got {shown(value)}")
        for key in value:
            if not str(key).isprintable():
                raise RecipeError(f"{at}: {key!r} is no name: it holds what cannot be printed")
        return {
            key: decode(arguments[1], item, where, f"{path}.{key}" if path else str(key), shorthands)
            for key, item in value.items()
        }
    return _scalar(kind, value, at)


def _scalar(kind: Any, value: Any, at: str) -> Any:
    if kind is bool and isinstance(value, bool):
        return value
    if kind is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if kind is float and not isinstance(value, bool):
        # YAML 1.1 reads 1e-5 (no dot) as text.
        try:
            number = float(value) if isinstance(value, int | float | str) else math.nan
        except ValueError:
            number = math.nan
        if math.isfinite(number):
            return number
    if kind is str:
        if isinstance(value, str):
            return value
        if isinstance(value, bool):
            raise RecipeError(f"{at}: YAML reads {'yes/on' if value else 'no/off'} as {value}; put it in quotes")
        if isinstance(value, int):
            return str(value)
    raise RecipeError(f"{at}: expected {kind.__name__}, got {shown(value)}")


def _names(kind: type) -> list[str]:
    return [f.name for f in dataclasses.fields(kind)]
