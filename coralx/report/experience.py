"""What a run took over from earlier ones, as reports have it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from coralx.records.experience import Experience
from coralx.records.genomes import Genome
from coralx.text import counted, enumerated


def experience_json(
    experience: Experience | None, born: Sequence[Genome] = ()
) -> dict[str, Any] | None:
    """`experience` of `report.json`; `born` are the genomes of generation 0, among which founders
    have their ids. None where the run learned from none."""
    if experience is None:
        return None
    ids = {genome.genes: genome.id for genome in reversed(born)}
    return {
        "sources": [asdict(source) for source in experience.sources],
        "founders": [
            {
                "genome": ids.get(founder.genes),
                "from": {"run": founder.run, "genome": founder.genome},
            }
            for founder in experience.founders
        ],
        "priors": {
            moved.gene: {
                "center": moved.center,
                "spread": moved.spread,
                "source": moved.source,
                "before": None
                if moved.former_center is None
                else {"center": moved.former_center, "spread": moved.former_spread},
            }
            for moved in experience.priors
        },
        "exploded": [asdict(rates) for rates in experience.exploded],
    }


def experience_lines(experience: Mapping[str, Any] | None) -> list[str]:
    """The same in words: of whom the run learned, and what."""
    if experience is None:
        return []
    lines = [f"experience: {_source_words(source)}" for source in experience["sources"]]
    founders = [f["from"] for f in experience["founders"]]
    if founders:
        names = enumerated(f"{f['genome']} of {f['run']}" for f in founders)
        lines.append(f"experience: {counted(len(founders), 'founder')} as {names}, trained anew")
    for gene, prior in experience["priors"].items():
        lines.append(f"experience: {_prior_words(gene, prior)}")
    lines += [
        f"experience: in {rates['run']} {rates['diverged']} of {rates['trained']} trainings "
        f"exploded at learning rates from {rates['lowest']:.3g} on"
        for rates in experience["exploded"]
    ]
    return lines


def _source_words(source: Mapping[str, Any]) -> str:
    if source["remark"]:
        return f"nothing is taken over from {source['run']}: {source['remark']}"
    trained = counted(source["genomes"], "genome")
    return (
        f"learning from {source['run']} ({source['likeness']}; {trained}, "
        f"{source['finished']} finished)"
    )


def _prior_words(gene: str, prior: Mapping[str, Any]) -> str:
    before, now = prior["before"], f"{prior['center']:.3g} (spread {prior['spread']:.2g})"
    if before is None:
        return f"{gene} expected about {now}"
    return f"{gene} expected about {now}, not {before['center']:.3g} ({before['spread']:.2g})"
