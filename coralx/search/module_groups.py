"""Groups of adapted modules: by kind (`query`, `value`, ...) and by layer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping

PREFIX = "base_model.model."
"""What PEFT puts before the names of a base's modules."""

Groups = Mapping[str, frozenset[str]]
"""The names of each group's modules, as they were given, by the group's name."""


def module_groups(stems: Collection[str]) -> Groups:
    """The groups by name, sorted; a module is in that of its kind and in that of its layer. None
    that holds all modules. Modules go by the base's names, or by PEFT's."""
    kinds, layers = defaultdict[str, set[str]](set), defaultdict[str, set[str]](set)
    for stem in stems:
        layer, kind = _layer_and_kind(stem)
        kinds[kind].add(stem)
        if layer is not None:
            layers[layer].add(stem)
    named = {
        **_renamed(kinds, _last_parts(kinds)),
        **_renamed(layers, _numbers(layers)),
    }
    return {name: named[name] for name in sorted(named) if len(named[name]) < len(stems)}


def _layer_and_kind(stem: str) -> tuple[str | None, str]:
    """The module's layer, by its name up to the first number, and what is left of the name, with a
    star for each further number (such as an expert's); no layer where there is no number."""
    parts = stem.removeprefix(PREFIX).split(".")
    place = next((place for place, part in enumerate(parts) if part.isdigit()), None)
    if place is None:
        return None, ".".join(parts)
    rest = ("*" if part.isdigit() else part for part in parts[place + 1 :])
    return ".".join(parts[: place + 1]), ".".join(rest)


def _renamed(groups: Mapping[str, set[str]], names: Mapping[str, str]) -> Groups:
    return {names[group]: frozenset(stems) for group, stems in groups.items()}


def _last_parts(kinds: Iterable[str]) -> dict[str, str]:
    """A kind is called by the last part of its name, or where kinds share it, by the last parts
    that tell them apart."""
    dotted = [f".{kind}" for kind in kinds]
    names = {}
    for kind in dotted:
        ends = ("." + ".".join(kind.split(".")[-count:]) for count in range(1, kind.count(".") + 1))
        own = (end for end in ends if sum(other.endswith(end) for other in dotted) == 1)
        names[kind[1:]] = next(own, kind)[1:]
    return names


def _numbers(layers: Iterable[str]) -> dict[str, str]:
    """A layer is called by its number, or where a model has several stacks of layers, by all of its
    name."""
    layers = list(layers)
    stacks = {layer.rpartition(".")[0] for layer in layers}
    if len(stacks) == 1:
        return {layer: f"layer {layer.rpartition('.')[2]}" for layer in layers}
    return {layer: f"layer {layer}" for layer in layers}
