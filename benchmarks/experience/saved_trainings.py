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
from coralx.search.experience import (
    Evidence,
    Trial,
    known_founders,
    moved_priors,
    with_priors,
)
from coralx.search.nsga2 import Standing, founders, offspring, survival_order
from coralx.search.recipes import opening_recipes
from coralx.search.space import Space

EVOLUTION = Evolution(population_size=8, generations=8)
EARLIER = 3
"""Generations of the earlier run."""

LOSS = Objective(metric="eval_loss")
GOAL = 1.01
ARMS = ("none", "experience", "shuffled", "noise")


@dataclass(frozen=True)
class Trained:
    """A genome and its final loss; None: it diverged."""

    genome: Genome
    loss: float | None


def search(
    surface: Surface, space: Space, generations: int, seed: int, known: Sequence[Genes] = ()
) -> Iterator[Trained]:
    """The genomes in the order in which they are trained."""
    trained: dict[str, Trained] = {}
    parents: list[Genome] = []
    for generation in range(generations):
        if generation == 0:
            born = founders(space, EVOLUTION.population_size, seed, known=known)
        else:
            seen = [one.genome.genes for one in trained.values()]
            born = offspring(parents, seen, (), space, EVOLUTION, generation, seed)
        for genome in born:
            trained[genome.id] = Trained(genome, surface.loss(genome.genes))
            yield trained[genome.id]
        pool = {genome.id: genome for genome in (*parents, *born)}
        standings = [
            Standing(name, 0, {"eval_loss": trained[name].loss}, trained[name].loss is None)
            for name in pool
        ]
        best = survival_order(standings, [LOSS])[: EVOLUTION.population_size]
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


def report(title: str, counts: dict[str, list[int]]) -> None:
    """A row for each arm: median, mean and the worst tenth, and against no experience."""
    base = fmean(counts["none"])
    for arm, found in counts.items():
        worst = sorted(found)[int(0.9 * len(found))]
        print(
            f"| {title} | {arm} | {median(found):g} | {fmean(found):.2f} | {worst} | "
            f"{max(found)} | {fmean(found) / base:.2f} |"
        )


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--table", type=Path, default=Path("../shared/data/sft_sweep/runs.csv"))
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--first", type=int, default=0)
    arguments = parser.parse_args()
    seeds = range(arguments.first, arguments.first + arguments.seeds)
    print("| tasks | experience | median | mean | worst tenth | worst | mean against none |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for prior in (None, 5e-4):
        words = "no prior" if prior is None else f"prior {prior:g}"
        where = space(prior)
        for likeness in APART:
            pairs = [made_up_pair(likeness, np.random.default_rng([1, seed])) for seed in seeds]
            counts = {
                arm: [
                    trainings(*pair, where, likeness, arm, seed)
                    for seed, pair in zip(seeds, pairs, strict=True)
                ]
                for arm in ARMS
            }
            report(f"made up, {likeness}, {words}", counts)
        pairs = [misleading(np.random.default_rng([2, seed])) for seed in seeds]
        counts = {
            arm: [
                trainings(*pair, where, "same kind", arm, seed)
                for seed, pair in zip(seeds, pairs, strict=True)
            ]
            for arm in ARMS[:2]
        }
        report(f"misleading, {words}", counts)
        if arguments.table.is_file():
            models = recorded(arguments.table)
            counts = {arm: [] for arm in ARMS}
            for width, new in models:
                _, near = min(
                    (pair for pair in models if pair[1] is not new),
                    key=lambda pair: abs(np.log(pair[0] / width)),
                )
                for seed in seeds[:10]:
                    for arm in ARMS:
                        counts[arm].append(trainings(near, new, where, "same kind", arm, seed))
            report(f"sweep, {words}", counts)


if __name__ == "__main__":
    main()
