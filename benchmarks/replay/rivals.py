"""The methods that CoralX is compared with: random search, successive halving, and Optuna's."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import optuna
from curve_table import Point, Table
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.trial import Trial, TrialState
from tape import BudgetSpent, Tape

from coralx.rng import generator

ATTEMPTS = 3
"""Optuna suggests configurations again that were trained already. It is asked again, so often, and
is then handed one at random that was not: as in CoralX, nothing is trained twice."""

WHOLE = Fraction(1)


def random_search(tape: Tape, seed: int) -> None:
    """Every configuration in a random order, each trained to its end."""
    try:
        for config in generator(seed, "replay").permutation(len(tape.table)):
            tape.look(int(config), WHOLE)
    except BudgetSpent:
        return


def successive_halving(
    tape: Tape, seed: int, rungs: Sequence[tuple[Fraction, Fraction]], cohort: int
) -> None:
    """Random configurations by cohorts; in each, the best share of every rung goes on (Jamieson and
    Talwalkar 2016). No configuration is drawn twice."""
    drawn = [int(config) for config in generator(seed, "replay").permutation(len(tape.table))]
    try:
        for start in range(0, len(drawn), cohort):
            members = drawn[start : start + cohort]
            for share, rate in rungs:
                losses = {config: tape.look(config, share) for config in members}
                members = sorted(members, key=lambda config: (losses[config], config))
                members = members[: max(1, int(rate * len(members)))]
    except BudgetSpent:
        return


def optimise(
    tape: Tape,
    seed: int,
    sampler: BaseSampler,
    pruner: BasePruner,
    shares: Sequence[Fraction],
    *,
    with_size: bool = False,
) -> None:
    """A study of Optuna's, one trial after the other. A trial reports at `shares` as steps 1, 2, 4
    and so on, so that SuccessiveHalvingPruner has one rung at each.

    With `with_size` the adapter's size is a second objective, and nothing is pruned.
    """
    study = optuna.create_study(
        directions=["minimize"] * (2 if with_size else 1), sampler=sampler, pruner=pruner
    )
    rng = generator(seed, "replay")
    try:
        while len(tape.seen) < len(tape.table):
            trial, config = _ask(study, tape, rng)
            if with_size:
                study.tell(trial, [tape.look(config, WHOLE), tape.table.parameters[config]])
            else:
                _run(tape, study, trial, config, shares)
    except BudgetSpent:
        return


def _ask(study: optuna.Study, tape: Tape, rng: np.random.Generator) -> tuple[Trial, int]:
    """The next trial, and its configuration, which the method has not seen yet."""
    for _ in range(ATTEMPTS):
        trial = study.ask()
        config = tape.table.config_at(_suggest(trial, tape.table))
        if config not in tape.seen:
            return trial, config
        study.tell(trial, state=TrialState.FAIL)  # samplers and pruners pass over it
    unseen = [config for config in range(len(tape.table)) if config not in tape.seen]
    config = unseen[int(rng.integers(len(unseen)))]
    point = tape.table.points[config]
    names = (gene.name for gene in tape.table.genes)
    study.enqueue_trial(dict(zip(names, point, strict=True)))
    trial = study.ask()
    _suggest(trial, tape.table)
    return trial, config


def _run(
    tape: Tape, study: optuna.Study, trial: Trial, config: int, shares: Sequence[Fraction]
) -> None:
    """Train the trial's configuration from share to share until it is pruned or at its end."""
    for place, share in enumerate(shares):
        loss = tape.look(config, share)
        trial.report(loss, 2**place)
        if share < WHOLE and trial.should_prune():
            study.tell(trial, state=TrialState.PRUNED)
            return
    study.tell(trial, loss)


def _suggest(trial: Trial, table: Table) -> Point:
    """The same space and encoding as CoralX has: places of ordered values, or a choice."""
    return tuple(
        trial.suggest_int(gene.name, 0, len(gene.values) - 1)
        if gene.is_ordered
        else trial.suggest_categorical(gene.name, range(len(gene.values)))
        for gene in table.genes
    )
