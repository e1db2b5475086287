"""Adapters that were made from finished ones without training: as a report has them, in words, and
what they brought."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coralx.text import counted

Derived = Mapping[str, Any]
"""A derivation as reports have it."""


def origin(derived: Derived, derivations: Mapping[str, Derived | None]) -> str:
    """How an adapter came to be, back to a genome that was trained or to a soup: "soup of g00-01
    and g01-04, scaled by 0.8". `derivations` has those of all genomes by id."""
    deeds: list[str] = []
    step: Derived | None = derived
    while step is not None and step["operator"] != "soup":
        deeds.append(deed(step))
        start = step["from"][0]
        step = derivations.get(start)
    deeds.reverse()
    return f"{start} {', '.join(deeds)}" if step is None else ", ".join([deed(step), *deeds])


def deed(derived: Derived) -> str:
    """What an operator did, in words."""
    match derived["operator"]:
        case "truncate":
            return f"truncated to rank {derived['rank']}"
        case "compress":
            return f"compressed to {100 * derived['share']:.3g} % of its parameters"
        case "scale":
            return f"scaled by {derived['factor']:.3g}"
        case "drop":
            return f"without {_groups(derived)}"
        case _:
            *others, last = derived["from"]
            return f"soup of {', '.join(others)} and {last}"


def _groups(derived: Derived) -> str:
    groups = derived["groups"]
    if len(groups) in (1, 2):
        return " and ".join(groups)
    return counted(len(groups) or derived["count"], "group") + " of modules"


def derivations_of(report: Mapping[str, Any]) -> dict[str, Derived | None]:
    """Every genome's derivation, by id; reports of earlier versions have none."""
    return {entry["genome"]: entry.get("derived") for entry in report["lineage"]}


def origin_of(member: Mapping[str, Any], report: Mapping[str, Any]) -> str | None:
    """How a member of the report's front came to be, in words; None if it was trained."""
    derived = member.get("derived")
    return None if derived is None else origin(derived, derivations_of(report))


def derived_lines(report: Mapping[str, Any]) -> list[str]:
    """For a terminal: how each member of the front that was not trained came to be."""
    named = [(member["genome"], origin_of(member, report)) for member in report["front"]]
    return [f"{genome}: {words}" for genome, words in named if words is not None]


def yield_lines(report: Mapping[str, Any]) -> list[str]:
    """For a terminal: what derived adapters cost and brought; nothing where none was scored."""
    efficiency, front = report["efficiency"], report["front"]
    count, looks = efficiency["derived_genomes"], efficiency["validation_looks_by"]["derivation"]
    if not count:
        return []
    on_front = sum(member["derived"] is not None for member in front)
    spent = counted(looks, "look")
    if efficiency["derivation_share"] is not None:
        spent += f", {100 * efficiency['derivation_share']:.2g} % of the training time"
    which = f"{on_front} of {len(front)}" if on_front else f"None of {len(front)}"
    members = counted(len(front), "member").removeprefix(f"{len(front)} ")
    were = "was" if on_front == 1 else "were"
    return [f"{which} {members} of the front {were} derived without training ({spent})."]
