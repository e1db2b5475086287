"""Which genomes the test split can tell apart, by the intervals of their differences, paired."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations

from coralx.config import Config
from coralx.config.metric_catalogue import described, of_task
from coralx.engine.context import RunContext
from coralx.engine.final_evaluation import measure, retrained
from coralx.engine.state import RunState
from coralx.errors import DamagedRunError
from coralx.metrics.row_scores import Said, is_whole, read_scores
from coralx.records.events import FrontCompared
from coralx.records.genomes import HEAD
from coralx.records.results import Comparison
from coralx.storage.history import History, origin_of
from coralx.storage.layout import RunLayout

Pair = tuple[str, str | None]

EARLIER = "one of the two was measured by an earlier version, which judged attacks otherwise"


def compared_metrics(config: Config) -> list[str]:
    """Objectives that are figures of predictions; others are exact, and need no resampling."""
    return [o.metric for o in config.objectives if described(o.metric).source == "predictions"]


def wanted_pairs(state: RunState) -> list[Pair]:
    """Each two of the front, the better on the first objective first; each of it with the default
    recipe, with the untuned base (None) and with a head trained on it; and with itself as trained
    from scratch."""
    front = state.front()
    pairs: list[Pair] = [*combinations(front, 2)]
    default = state.default_finisher()
    if default is not None and default not in front:
        pairs += [(genome, default) for genome in front]
    pairs += [(genome, None) for genome in front]
    if HEAD in state.history.measurements:
        pairs += [(genome, HEAD) for genome in front]
    fresh = {str(origin_of(g.id)): g.id for g in retrained(state)}
    return pairs + [(genome, fresh[genome]) for genome in front if genome in fresh]


def compare(context: RunContext) -> None:
    """Compare the front, unless the ledger holds it already. Who was measured without keeping
    scores of rows is left out; whose file is lost or damaged is measured again, and left out where
    that fails.

    Raises DamagedRunError where measuring does not bring the file back.
    """
    state, history, layout = context.state, context.history, context.layout
    pairs = wanted_pairs(state) if compared_metrics(state.config) else []
    pairs = [pair for pair in pairs if all(_kept(history, name) for name in pair)]
    recorded = history.compared
    if recorded is not None and {(c.first, c.second) for c in recorded.pairs} == set(pairs):
        return
    names = list(dict.fromkeys(name for pair in pairs for name in pair))
    if layout is not None and (lost := _lost(layout, history, names)):
        measure(context, beside=True, again=lost)
        lost = _lost(layout, history, names)
        if damaged := [name for name in lost if name not in history.unmeasured]:
            raise DamagedRunError(f"{layout.scores(damaged[0])}: missing or damaged")
        pairs = [pair for pair in pairs if not set(pair) & set(lost)]
    context.ledger.append(FrontCompared(tuple(_comparisons(state, layout, pairs))))


def _kept(history: History, name: str | None) -> str | None:
    """The digest of the file that holds the genome's scores of rows, if there is to be one."""
    measured = history.measurements.get(name)
    return measured.scores if measured else None


def _lost(layout: RunLayout, history: History, names: Iterable[str | None]) -> list[str | None]:
    """Those whose file is not as it was when it was measured."""
    return [name for name in names if not is_whole(layout.scores(name), str(_kept(history, name)))]


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
    names = dict.fromkeys(name for pair in pairs for name in pair)
    values = {
        name: {metric: history.measurements[name].test[metric].value for metric in metrics}
        for name in names
    }
    defined = [name for name in names if any(v is not None for v in values[name].values())]
    scores = {name: read_scores(layout.scores(name)) for name in defined}
    seed = config.experiment.seed
    drawn = drawn_figures(scores, seed)
    own = {name: intervals(said, seed) for name, said in scores.items()}
    for first, second in pairs:
        for metric in metrics:
            ours, theirs = values[first][metric], values[second][metric]
            if ours is None or theirs is None:
                yield Comparison(first, second, metric, None, None, None)
                continue
            if of_task(metric)[0] == "safety" and _judged_apart(scores[first], scores[second]):
                yield Comparison(first, second, metric, None, None, None, EARLIER)
                continue
            sides = own[first][metric], own[second][metric]
            pair = drawn[first][metric], drawn[second][metric]
            low, high = difference_interval(metric, *sides, pair) or (None, None)
            remark = next((side.remark for side in sides if side.remark is not None), None)
            yield Comparison(first, second, metric, ours - theirs, low, high, remark)


def _judged_apart(first: Said, second: Said) -> bool:
    """Whether one of the two was judged by a version that took the most probable class."""
    return any((first[task].attacked is None) != (second[task].attacked is None) for task in first)
