"""Trainings that experience saves, and what useless experience costs: replayed, in seconds.

    python benchmarks/experience/saved_trainings.py [--table runs.csv] [--seeds 40]

Searches with CoralX's own founders, breeding and survival, a training at a time and without
stages, on final losses: each model of a recorded sweep after the one of the nearest width, and
made-up tasks after others that are more or less alike. Counted are trainings until a loss within
1 % of the best. `shuffled` has the earlier run's results dealt out anew to its genomes; in `noise`
chance alone led the earlier run.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

import numpy as np
from surfaces import APART, Surface, made_up_pair, misleading, pure_noise, recorded, space

from coralx.config.evolution import Evolution, Objective
from coralx.records.experience import Likeness
from coralx.records.genomes import Genes, Genome
from coralx.records.run_facts import REVISION
from coralx.search.experience import (
    Evidence,
    Trial,
    known_founders,
    moved_priors,
    with_priors,
)
from coralx.search.needless import Seen
from coralx.search.nsga2 import Standing, founders, offspring, survival_order
from coralx.search.recipes import opening_recipes
from coralx.search.space import Space

EVOLUTION = Evolution(population_size=8, generations=8)
EARLIER = 3
"""Generations of the earlier run."""

LOSS = Objective(metric="eval_loss")
GOAL = 1.01
PRIORS = (None, 4e-4)
TABLE = Path(__file__).parents[3] / "shared" / "data" / "sft_sweep" / "runs.csv"
ARMS = ("none", "experience", "shuffled", "noise")


@dataclass(frozen=True)
class Trained:
    """A genome and its final loss; None: it diverged."""

    genome: Genome
    loss: float | None


def search(
    surface: Surface,
    space: Space,
    generations: int,
    seed: int,
    known: Sequence[Genes] = (),
    evolution: Evolution = EVOLUTION,
    revision: int = REVISION,
) -> Iterator[Trained]:
    """The genomes in the order in which they are trained."""
    size = evolution.population_size
    trained: dict[str, Trained] = {}
    parents: list[Genome] = []
    for generation in range(generations):
        if generation == 0:
            born = founders(space, size, seed, known=known)
        else:
            seen = [one.genome.genes for one in trained.values()]
            born = offspring(
                parents, Seen(seen), (), space, evolution, generation, seed, revision=revision
            )
        for genome in born:
            trained[genome.id] = Trained(genome, surface.loss(genome.genes))
            yield trained[genome.id]
        pool = {genome.id: genome for genome in (*parents, *born)}
        standings = [
            Standing(name, 0, {"eval_loss": trained[name].loss}, trained[name].loss is None)
            for name in pool
        ]
        best = survival_order(standings, [LOSS])[:size]
        parents = [pool[name] for name in best]


def evidence_of(trained: Sequence[Trained], likeness: Likeness, shuffle: int | None) -> Evidence:
    """What an earlier run found, or with `shuffle` what chance would have had it find."""
    losses = [one.loss for one in trained]
    if shuffle is not None:
        order = np.random.default_rng(shuffle).permutation(len(losses))
        losses = [losses[place] for place in order]
    pairs = zip(trained, losses, strict=True)
    ranked = sorted(pairs, key=lambda pair: float("inf") if pair[1] is None else pair[1])
    trials = [Trial(one.genome.id, one.genome.genes, loss is None) for one, loss in ranked]
    return Evidence("earlier", likeness, trials, trials[:3])


def trainings(
    earlier: Surface, new: Surface, where: Space, likeness: Likeness, arm: str, seed: int
) -> int:
    """Until a loss within 1 % of the best, or the search's end."""
    known: Sequence[Genes] = ()
    if arm != "none":
        learnt_on = pure_noise(seed) if arm == "noise" else earlier
        before = list(search(learnt_on, where, EARLIER, seed + 10_000))
        evidence = evidence_of(before, likeness, seed if arm == "shuffled" else None)
        where = with_priors(where, moved_priors(where, [evidence], ("rank",)))
        given = opening_recipes(where)
        found = known_founders(where, EVOLUTION.population_size, [evidence], given)
        known = [one.genes for one in found]
    count = 0
    for one in search(new, where, EVOLUTION.generations, seed, known):
        count += 1
        if one.loss is not None and one.loss <= GOAL * new.best:
            break
    return count


Case = tuple[str, Likeness, list[tuple[int, Surface, Surface]], Sequence[str]]
"""Name, likeness, a seed with an earlier and a new task each, and the arms."""


def cases(seeds: Sequence[int], table: Path) -> Iterator[Case]:
    """Made-up tasks of each likeness, tasks that mislead, and if it is there the sweep."""
    for likeness in APART:
        pairs = [(s, *made_up_pair(likeness, np.random.default_rng([1, s]))) for s in seeds]
        yield f"made up, {likeness}", likeness, pairs, ARMS
    pairs = [(s, *misleading(np.random.default_rng([2, s]))) for s in seeds]
    yield "made up, a decade off", "same kind", pairs, ARMS[:2]
    if table.is_file():
        models = recorded(table)
        pairs = [(s, nearest(models, new), new) for _, new in models for s in seeds[:10]]
        yield "sweep", "same kind", pairs, ARMS


def nearest(models: Sequence[tuple[int, Surface]], new: Surface) -> Surface:
    """The other model whose width is nearest."""
    (width,) = [width for width, surface in models if surface is new]
    others = [pair for pair in models if pair[1] is not new]
    return min(others, key=lambda pair: abs(np.log(pair[0] / width)))[1]


def main() -> None:
    """Print a table in Markdown: median, mean, and the worst tenth and worst of all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--first", type=int, default=0, help="The first seed.")
    chosen = parser.parse_args()
    seeds = range(chosen.first, chosen.first + chosen.seeds)
    print("| tasks | prior | experience | median | mean | worst tenth | worst | mean, to none |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for prior in PRIORS:
        where = space(prior)
        for title, likeness, pairs, arms in cases(seeds, chosen.table):
            base = 0.0
            for arm in arms:
                found = sorted(
                    trainings(earlier, new, where, likeness, arm, seed)
                    for seed, earlier, new in pairs
                )
                base = base or fmean(found)
                print(
                    f"| {title} | {prior or 'none'} | {arm} | {median(found):g} | "
                    f"{fmean(found):.2f} | {found[int(0.9 * len(found))]} | {found[-1]} | "
                    f"{fmean(found) / base:.2f} |"
                )


if __name__ == "__main__":
    main()
