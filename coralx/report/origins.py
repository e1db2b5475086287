"""How adapters came about: ranks that grew with the stages, and blends of two parents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from itertools import pairwise
from typing import Any

from coralx.run.history import History


def growth_of(history: History, genome: str) -> list[dict[str, Any]]:
    """Every stage on entering which the genome's rank grew, with the rank before and since."""
    ranks = [
        (result.stage, result.rank)
        for (name, _), result in history.results.items()
        if name == genome and result.rank is not None
    ]
    return [
        {"stage": stage, "before": before, "rank": rank}
        for (_, before), (stage, rank) in pairwise(ranks)
        if before != rank
    ]


def blends_of(history: History) -> list[dict[str, Any]]:
    """Every blend of two parents that was tried, with its losses before any training."""
    return [
        {"genome": genome, **asdict(result.inheritance.blend)}
        for (genome, _), result in history.results.items()
        if result.inheritance is not None and result.inheritance.blend is not None
    ]


def origin_lines(report: Mapping[str, Any]) -> list[str]:
    """Both, as a person reads them in a terminal."""
    grown = [
        f"{member['genome']} grew {step['before']} -> {step['rank']} entering {step['stage']}"
        for member in report["front"]
        for step in member["growth"]
    ]
    lines = [f"Rank: {'; '.join(grown)}"] if grown else []
    blends = report["blends"]
    if blends:
        kinds = sorted({blend["kind"] for blend in blends})
        counts = [
            f"{kind} {sum(b['kept'] for b in blends if b['kind'] == kind)} of "
            f"{sum(b['kind'] == kind for b in blends)}"
            for kind in kinds
        ]
        lines.append(f"Checkpoint crossover, kept for a lower loss: {', '.join(counts)}")
    return lines
