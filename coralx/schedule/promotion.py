"""Which genomes go on from a stage: successive halving (Jamieson and Talwalkar 2016, algorithm 1),
and its asynchronous form."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

from coralx.records.results import StageResult
from coralx.records.verdicts import Cut, Fail, Finish, Promote, Stop, Verdict
from coralx.schedule.stages import Stage
from coralx.schedule.stop_rules import Breach


def decide(
    stage: Stage,
    results: Sequence[StageResult],
    best_first: Sequence[str],
    breaches: Mapping[str, Breach],
    failed: Mapping[str, str],
    controls: Collection[str] = (),
) -> tuple[Verdict, ...]:
    """A verdict for every genome that entered `stage`, the best first.

    `best_first` orders the genomes that no rule took out; at most floor(survival rate x entered) of
    them go on, at least one if there is one, and with them every one of the `controls`. `failed`
    gives the reason by genome for those whose jobs failed; they count as entered.
    """
    quota = stage.quota(len(results) + len(failed))
    verdicts: list[Verdict] = []
    for place, genome in enumerate(best_first):
        if stage.is_last:
            verdicts.append(Finish(genome))
        elif place < quota or genome in controls:
            verdicts.append(Promote(genome))
        else:
            verdicts.append(Cut(genome, place=place + 1, quota=quota))
    for result in sorted(results, key=lambda result: result.genome):
        breach = breaches.get(result.genome)
        if breach is not None:
            step = result.divergence.step if result.divergence else result.last_step
            verdicts.append(Stop(result.genome, rule=breach.rule, value=breach.value, step=step))
    verdicts += [Fail(genome, failed[genome]) for genome in sorted(failed)]
    return tuple(verdicts)


def promotable(
    stage: Stage, best_first: Sequence[str], completed: int, promoted: Collection[str]
) -> list[str]:
    """Who may go on at this moment under asynchronous promotion (ASHA: Li et al. 2020, algorithm
    2): the best floor(survival rate x `completed`) so far, without those `promoted` before.

    `best_first` orders the genomes that no rule took out; `completed` counts all that were trained
    through the stage.
    """
    quota = math.floor(stage.survival_rate * completed)
    return [genome for genome in best_first[:quota] if genome not in promoted]
