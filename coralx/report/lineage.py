"""Where every genome came from, and what became of it.

How adapters came about: ranks that grew with the stages, and blends of two parents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any

from rich.text import Text
from rich.tree import Tree

from coralx.records.verdicts import Cut, Fail, Finish, Promote, Replace, Stop, Verdict
from coralx.schedule.stages import Stage
from coralx.search.pbt import EXPLORED
from coralx.storage.history import History

OUTCOMES = {
    Finish: "finished",
    Cut: "cut",
    Replace: "replaced",
    Stop: "stopped",
    Fail: "failed",
}


def lineage_of(history: History) -> list[dict[str, Any]]:
    """Every genome in order of birth: parents, steps, and its last stage with the verdict there.

    `inherits` is the parent whose weights it began with, `continues` the genome that it is a copy
    of; `own_steps` were trained since its birth, `lineage_steps` are those and all that its weights
    had seen before. `verdict` is None while it may go on.
    """
    inherited = {genome: result.inherited_steps for (genome, _), result in history.results.items()}
    verdicts: dict[str, tuple[str, Verdict]] = {
        verdict.genome: (decision.stage, verdict)
        for decision in history.decisions.values()
        for verdict in decision.verdicts
        if not isinstance(verdict, Promote)
    }
    found = []
    for genome in history.genomes.values():
        stage, verdict = verdicts.get(genome.id, (None, None))
        last = history.last_result(genome.id)
        own = history.own_steps(genome.id)
        found.append(
            {
                "genome": genome.id,
                "generation": genome.generation,
                "parents": list(genome.parents),
                "inherits": genome.inherits,
                "continues": genome.continues,
                "own_steps": own,
                "lineage_steps": own + inherited.get(genome.id, 0),
                "stage": stage or (last.stage if last else None),
                "verdict": OUTCOMES[type(verdict)] if verdict else None,
            }
        )
    return found


def schedule_of(history: History, genome: str, stages: Sequence[Stage]) -> list[dict[str, Any]]:
    """The hyperparameters that a copy's lineage was trained with, stage by stage from its root;
    empty for a genome that kept its own. `runtime.verify_front` trains by them from scratch."""
    if history.genomes[genome].continues is None:
        return []
    return [
        {
            "stage": stage.name,
            "genome": then.id,
            **{name: getattr(then.genes, name) for name in EXPLORED},
        }
        for stage in stages
        if (then := history.genome_at(genome, stage.place)).enters <= stage.place
    ]


def ancestry(report: Mapping[str, Any]) -> Tree | None:
    """A tree of the front's members that began with the weights of others, down from the genomes
    that were trained from scratch; None where there are no such members."""
    genomes = {entry["genome"]: entry for entry in report["lineage"]}
    front = [member["genome"] for member in report["front"]]
    children: dict[str, list[str]] = {}
    roots: list[str] = []
    for name in front:
        donor = _donor(genomes[name])
        while donor is not None:
            heirs = children.setdefault(donor, [])
            if name in heirs:
                break
            heirs.append(name)
            name, donor = donor, _donor(genomes[donor])
        else:
            if name in children and name not in roots:
                roots.append(name)
    if not roots:
        return None
    tree = Tree(
        Text("Ancestry of the front, by weights: own steps +inherited", style="italic"),
        guide_style="dim",
    )
    waiting = [(tree, root) for root in reversed(roots)]
    while waiting:
        above, name = waiting.pop()
        branch = above.add(_label(genomes[name], on_front=name in front))
        waiting += [(branch, child) for child in reversed(children.get(name, []))]
    return tree


def _donor(entry: Mapping[str, Any]) -> str | None:
    donor = entry["inherits"] or entry["continues"]
    return None if donor is None else str(donor)


def _label(entry: Mapping[str, Any], *, on_front: bool) -> Text:
    inherited = entry["lineage_steps"] - entry["own_steps"]
    steps = f"{entry['own_steps']:,}" + (f" +{inherited:,}" if inherited else "")
    ending = "on the front" if on_front else entry["verdict"] or "going on"
    return Text.assemble((entry["genome"], "bold" if on_front else ""), f": {steps}, {ending}")


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
