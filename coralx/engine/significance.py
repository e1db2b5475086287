"""Which genomes the test split can tell apart, by the intervals of their differences, paired."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations

from coralx.config import Config
from coralx.config.metric_catalogue import metric_entry, split_metric_name
from coralx.engine.context import RunContext
from coralx.engine.final_evaluation import measure, retrained_front
from coralx.engine.state import RunState
from coralx.errors import DamagedRunError
from coralx.metrics.row_scores import ScoresByTask, read_scores, scores_are_intact
from coralx.records.events import FrontCompared
from coralx.records.results import Comparison
from coralx.records.subjects import Baseline, FromScratch, Searched, Subject, id_of
from coralx.storage.history import History
from coralx.storage.layout import RunLayout

Pair = tuple[Searched, Subject]

EARLIER = "one of the two was measured by an earlier version, which judged attacks otherwise"


def compared_metrics(config: Config) -> list[str]:
    """Objectives that are figures of predictions; others are exact, and need no resampling."""
    return [o.metric for o in config.objectives if metric_entry(o.metric).source == "predictions"]


def pairs_to_compare(state: RunState) -> list[Pair]:
    """Each two of the front, the better on the first objective first; each of it with the default
    recipe and the priors' centre, with the untuned base and with a head trained on it; and with
    itself as trained from scratch."""
    history = state.history
    front = [Searched(genome) for genome in state.front()]
    pairs: list[Pair] = [*combinations(front, 2)]
    for recipe in state.finishers().values():
        if recipe not in front:
            pairs += [(member, recipe) for member in front]
    pairs += [(member, Baseline.UNTUNED) for member in front]
    if Baseline.TRAINED_HEAD in history.measurements:
        pairs += [(member, Baseline.TRAINED_HEAD) for member in front]
    verified = {genome.parents[0] for genome in retrained_front(state)}
    for member in front:
        if member.genome in verified:
            pairs.append((member, FromScratch(member.genome)))
    return pairs


def compare(context: RunContext) -> None:
    """Compare the front, unless the ledger holds it already. Who was measured without keeping
    scores of rows is left out; whose file is lost or damaged is measured again, and left out where
    that fails.

    Raises DamagedRunError where measuring does not bring the file back.
    """
    state, history, layout = context.state, context.history, context.layout
    pairs = pairs_to_compare(state) if compared_metrics(state.config) else []
    pairs = [pair for pair in pairs if _has_scores(history, pair)]
    recorded = history.compared
    ids = {(first.genome, id_of(second)) for first, second in pairs}
    if recorded is not None and {(c.first, c.second) for c in recorded.pairs} == ids:
        return
    subjects = _each_once(pairs)
    if layout is not None and (lost := _lost(layout, history, subjects)):
        measure(context, retrained=True, again=lost)
        lost = _lost(layout, history, subjects)
        if damaged := [subject for subject in lost if subject not in history.unmeasured]:
            raise DamagedRunError(
                f"{layout.scores(id_of(damaged[0]))}: missing or damaged after measuring again",
                "Check the storage that it lies on, and resume.",
            )
        pairs = [pair for pair in pairs if not set(pair) & set(lost)]
    context.ledger.append(FrontCompared(tuple(_comparisons(state, layout, pairs))))


def _each_once(pairs: Iterable[Pair]) -> list[Subject]:
    return list(dict.fromkeys(subject for pair in pairs for subject in pair))


def _has_scores(history: History, pair: Pair) -> bool:
    """Whether the scores of rows of both were kept when they were measured."""
    return all(_digest(history, subject) for subject in pair)


def _digest(history: History, subject: Subject) -> str | None:
    """Of the file that holds the subject's scores of rows, if there is to be one."""
    measured = history.measurements.get(subject)
    return measured.scores if measured else None


def _lost(layout: RunLayout, history: History, subjects: Iterable[Subject]) -> list[Subject]:
    """Those whose file is not as it was when it was measured."""
    return [
        subject
        for subject in subjects
        if not scores_are_intact(layout.scores(id_of(subject)), str(_digest(history, subject)))
    ]


def _comparisons(
    state: RunState, layout: RunLayout | None, pairs: Sequence[Pair]
) -> Iterable[Comparison]:
    if layout is None or not pairs:
        return
    # They bring scikit-learn and scipy, which no command but this needs, and every one would load.
    from coralx.metrics.bootstrap import drawn_figures
    from coralx.metrics.intervals import intervals
    from coralx.metrics.paired_differences import difference_interval

    config, history = state.config, state.history
    metrics = compared_metrics(config)
    values: dict[Subject, dict[str, float | None]] = {}
    scores: dict[Subject, ScoresByTask] = {}
    for subject in _each_once(pairs):
        test = history.measurements[subject].test
        values[subject] = {metric: test[metric].value for metric in metrics}
        # Without any figure there is nothing to draw again, whatever the file holds.
        if any(value is not None for value in values[subject].values()):
            scores[subject] = read_scores(layout.scores(id_of(subject)))
    seed = config.experiment.seed
    drawn = drawn_figures(scores, seed)
    own = {subject: intervals(said, seed) for subject, said in scores.items()}
    for first, second in pairs:
        names = first.genome, id_of(second)
        for metric in metrics:
            ours, theirs = values[first][metric], values[second][metric]
            if ours is None or theirs is None:
                yield Comparison(*names, metric, None, None, None)
                continue
            if split_metric_name(metric)[0] == "safety" and _judged_apart(
                scores[first], scores[second]
            ):
                yield Comparison(*names, metric, None, None, None, EARLIER)
                continue
            sides = own[first][metric], own[second][metric]
            pair = drawn[first][metric], drawn[second][metric]
            low, high = difference_interval(metric, *sides, pair) or (None, None)
            remark = next((side.remark for side in sides if side.remark is not None), None)
            yield Comparison(*names, metric, ours - theirs, low, high, remark)


def _judged_apart(first: ScoresByTask, second: ScoresByTask) -> bool:
    """Whether one of the two was judged by a version that took the most probable class."""
    return any((first[task].attacked is None) != (second[task].attacked is None) for task in first)
