"""Where every genome came from and what became of it: parents and inherited weights, ranks that
grew with the stages, blends of two parents' checkpoints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any

from rich.text import Text
from rich.tree import Tree

from coralx.records.derivations import derivation_json
from coralx.records.verdicts import Cut, Fail, Finish, Promote, Replace, Stop, Verdict
from coralx.report.derived import deed
from coralx.schedule.stages import Stage
from coralx.search.pbt import EXPLORED
from coralx.storage.history import History

VERDICTS = {
    Finish: "finished",
    Cut: "cut",
    Replace: "replaced",
    Stop: "stopped",
    Fail: "failed",
}
"""The last verdict on a genome, as written into `report.json`."""

DERIVED = "derived"
"""The same of a genome that went through no stage."""


def lineage_of(history: History) -> list[dict[str, Any]]:
    """Every genome in order of birth: parents, steps, and its last stage with the verdict there.

    `inherits` is the parent whose weights it began with, `continues` the genome that it is a copy
    of, `derived` how it was made without training; `own_steps` were trained since its birth,
    `lineage_steps` are those and all that its weights had seen before. `function_lost` is the share
    of the update of what it began with or was made from that was lost, None where it was not
    recorded. `verdict` is None while it may go on.
    """
    inherited = {genome: result.inherited_steps for (genome, _), result in history.results.items()}
    lost = {
        genome: result.inheritance.error
        for (genome, _), result in history.results.items()
        if result.inheritance is not None
    }
    verdicts: dict[str, tuple[str, Verdict]] = {
        verdict.genome: (decision.stage, verdict)
        for decision in history.decisions.values()
        for verdict in decision.verdicts
        if not isinstance(verdict, Promote)
    }
    entries = []
    for genome in history.genomes.values():
        stage, verdict = verdicts.get(genome.id, (None, None))
        last = history.last_result(genome.id)
        own = history.own_steps(genome.id)
        ending = VERDICTS[type(verdict)] if verdict else None
        entries.append(
            {
                "genome": genome.id,
                "generation": genome.generation,
                "parents": list(genome.parents),
                "inherits": genome.inherits,
                "continues": genome.continues,
                "derived": derivation_json(genome.derived),
                "function_lost": lost.get(genome.id),
                "own_steps": own,
                "lineage_steps": own + inherited.get(genome.id, 0),
                "stage": stage or (last.stage if last else None),
                "verdict": DERIVED if genome.derived is not None else ending,
            }
        )
    return entries


def schedule_of(history: History, genome: str, stages: Sequence[Stage]) -> list[dict[str, Any]]:
    """The hyperparameters that a copy's lineage was trained with, stage by stage from its root;
    empty for a genome that kept its own. `runtime.verify_front` trains by them from scratch."""
    if history.genomes[genome].continues is None:
        return []
    schedule = []
    for stage in stages:
        then = history.genome_at(genome, stage.place)
        if then.enters <= stage.place:
            explored = {name: getattr(then.genes, name) for name in EXPLORED}
            schedule.append({"stage": stage.name, "genome": then.id, **explored})
    return schedule


def ancestry(report: Mapping[str, Any]) -> Tree | None:
    """A tree of the front's members that began with the weights of others, or are derived from
    them, down from the genomes that were trained from scratch; None where there are no such
    members. A soup stands below the first of the genomes that it was made of."""
    genomes = {entry["genome"]: entry for entry in report["lineage"]}
    front = [member["genome"] for member in report["front"]]
    children: dict[str, list[str]] = {}
    roots: list[str] = []
    # up from each member, until an ancestor is in the tree already, or has no donor: a root
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
    # down from the roots with a stack: lineages may be deeper than Python recurses
    waiting = [(tree, root) for root in reversed(roots)]
    while waiting:
        above, name = waiting.pop()
        branch = above.add(_label(genomes[name], on_front=name in front))
        waiting += [(branch, child) for child in reversed(children.get(name, []))]
    return tree


def _donor(entry: Mapping[str, Any]) -> str | None:
    derived = entry.get("derived")
    donor = entry["inherits"] or entry["continues"] or (derived and derived["from"][0])
    return None if donor is None else str(donor)


def _label(entry: Mapping[str, Any], *, on_front: bool) -> Text:
    inherited = entry["lineage_steps"] - entry["own_steps"]
    steps = f"{entry['own_steps']:,}" + (f" +{inherited:,}" if inherited else "")
    ending = "on the front" if on_front else entry["verdict"] or "going on"
    if (derived := entry.get("derived")) is not None:
        ending = deed(derived) + (", on the front" if on_front else "")
    return Text.assemble((entry["genome"], "bold" if on_front else ""), f": {steps}, {ending}")


def growth_of(history: History, genome: str) -> list[dict[str, Any]]:
    """Every stage on entering which the genome's rank grew, with the rank before and since."""
    ranks = [
        (result.stage, result.rank)
        for result in history.results_of(genome)
        if result.rank is not None
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
    """Grown ranks and blends, for a terminal."""
    grown = [
        f"{member['genome']} grew {step['before']} -> {step['rank']} entering {step['stage']}"
        for member in report["front"]
        for step in member["growth"]
    ]
    lines = [f"Rank: {'; '.join(grown)}"] if grown else []
    blends = report["blends"]
    if blends:
        tried = Counter(blend["kind"] for blend in blends)
        kept = Counter(blend["kind"] for blend in blends if blend["kept"])
        counts = ", ".join(f"{kind} {kept[kind]} of {tried[kind]}" for kind in sorted(tried))
        lines.append(f"Checkpoint crossover, kept for a lower loss: {counts}")
    return lines
