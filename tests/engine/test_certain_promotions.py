"""A promotion that is called certain is in the decision, whatever the missing outcomes bring."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from coralx.engine.certain_promotions import CertainPromotions
from coralx.engine.stage_decisions import decide_stage
from coralx.engine.state import RunState
from coralx.records.events import GenerationStarted, GenomeFailed, StageCompleted
from coralx.records.genomes import Genes, Genome
from coralx.records.results import Divergence
from coralx.records.verdicts import Promote
from coralx.storage.history import History
from tests.support.factories import make_config, make_result

METRICS = (
    ("auroc", "maximize"),
    ("trainable_parameters", "minimize"),
    ("eval_loss", "minimize"),
)
NAMES = "abcdefg"

FIGURE = st.one_of(st.none(), st.integers(0, 3))
"""Few values, so that there are ties; None: undefined."""

SIZE = st.one_of(st.none(), st.integers(0, 9), st.integers(0, 9))

OUTCOME = st.one_of(
    st.sampled_from(["failed", "diverged"]),
    st.tuples(FIGURE, SIZE, FIGURE, st.sampled_from([0.5, 9.0])),
)

UNKNOWN_COLUMN: list[Any] = [*((n, None, 0, 0.5) for n in (3, 2, 1, 1)), (0, 0, 0, 0.5)]
"""The last one is the first to have a second figure."""

SMALLEST_IS_POOREST: list[Any] = [(n, size, 0, 0.5) for n, size in ((0, 0), (3, 2), (2, 1), (3, 3))]


def state_of(objectives: int, **stage: Any) -> RunState:
    chosen = [{"metric": metric, "direction": way} for metric, way in METRICS[:objectives]]
    constraints = stage.pop("constraints", [])
    selection = stage.pop("selection", "nsga2")
    budgets = ((1, 50), (1, 100))
    listed = [
        {
            "name": f"S{place}",
            "epoch_budget": budget,
            "data_percentage": share,
            "survival_rate": 0.5,
        }
        for place, (budget, share) in enumerate(budgets)
    ]
    listed[0] |= {"stop_when": ["gradient_norm > 5.0"], **stage}
    config = make_config(
        objectives=chosen,
        constraints=constraints,
        evolution={"selection": selection},
        hyperband_config={"training_stages": listed, "rungs": "fixed"},
    )
    return RunState(config, History())


def bring(history: History, genome: str, outcome: Any) -> None:
    if outcome == "failed":
        history.apply(GenomeFailed(0, genome, "S0", "played"))
        return
    result = make_result(genome, checkpoint="there")
    if outcome == "diverged":
        result = replace(result, divergence=Divergence(3, "loss"))
    else:
        *figures, norm = outcome
        names = [metric for metric, _ in METRICS]
        shares = [None if figure is None else figure / 3 for figure in figures]
        metrics = {**dict(zip(names, shares, strict=True)), "gradient_norm": norm}
        result = replace(result, metrics=metrics)
    history.apply(StageCompleted(0, result))


def with_size(outcome: Any, size: int) -> Any:
    """An outcome that has a size, if it has figures at all."""
    if not isinstance(outcome, tuple) or outcome[1] is not None:
        return outcome
    return (outcome[0], size, *outcome[2:])


def sized_as(size: int) -> dict[str, float | None]:
    return {"trainable_parameters": size / 3}


@settings(max_examples=300, deadline=None)
@given(
    objectives=st.integers(1, 3),
    outcomes=st.lists(OUTCOME, min_size=2, max_size=len(NAMES)),
    rate=st.sampled_from(["0.25", "0.5", "0.67", "1"]),
    stage=st.sampled_from([
        {}, {"promote_by": "eval_loss"}, {"constraints": ["auroc >= 0.5"]}, {"selection": "nsga3"},
    ]),
    order=st.randoms(use_true_random=False),
    controls=st.sets(st.sampled_from(NAMES), max_size=2),
    brackets=st.booleans(),
    sized=st.booleans(),
)  # fmt: skip
@example(2, UNKNOWN_COLUMN, "0.67", {}, None, set(), False, False)
@example(2, SMALLEST_IS_POOREST, "0.25", {}, None, set(), False, True)
@example(2, SMALLEST_IS_POOREST, "0.5", {"constraints": ["auroc >= 0.5"]}, None, set(), False, True)
def test_what_is_certain_is_decided_so(
    objectives: int, outcomes: list[Any], rate: str, stage: dict[str, Any], order: Any,
    controls: set[str], brackets: bool, sized: bool,
) -> None:  # fmt: skip
    state = state_of(objectives, survival_rate=rate, **stage)
    genomes = tuple(
        replace(Genome(name, 0, Genes()), is_control=name in controls, bracket=brackets * (i % 2))
        for i, (name, _) in enumerate(zip(NAMES, outcomes, strict=False))
    )
    state.history.apply(GenerationStarted(0, genomes))
    pairs = list(zip(NAMES, outcomes, strict=False))
    if order is not None:
        order.shuffle(pairs)
    if sized:  # an adapter's size is known from a stage before
        pairs = [(name, with_size(outcome, i)) for i, (name, outcome) in enumerate(pairs)]
        for place, (name, outcome) in enumerate(pairs):
            size = outcome[1] if isinstance(outcome, tuple) else place
            before = make_result(name, sized_as(size), stage="-", checkpoint="there")
            state.history.apply(StageCompleted(0, before))
    rung = CertainPromotions(state, state.stages[0], 0, genomes)
    certain: set[str] = set()
    for name, outcome in pairs:
        bring(state.history, name, outcome)
        now = {genome.id for genome in rung.so_far()}
        assert certain <= now  # what is certain stays so
        certain = now
    decision = decide_stage(state, state.stages[0], 0, genomes)
    promoted = {v.genome for v in decision.verdicts if isinstance(v, Promote)}
    assert certain <= promoted


def test_who_is_better_than_as_many_as_are_cut_need_not_wait() -> None:
    """Half of four go on: the best of three known is certain, the second is not."""
    state = state_of(1, survival_rate="0.5")
    genomes = tuple(Genome(name, 0, Genes()) for name in "abcd")
    state.history.apply(GenerationStarted(0, genomes))
    rung = CertainPromotions(state, state.stages[0], 0, genomes)
    for name, skill in (("a", 0), ("b", 2)):
        bring(state.history, name, (skill, 0, 0, 0.5))
    assert rung.so_far() == []
    bring(state.history, "c", (1, 0, 0, 0.5))
    assert [genome.id for genome in rung.so_far()] == ["b"]
    bring(state.history, "d", "failed")
    assert [genome.id for genome in rung.so_far()] == ["b", "c"]


def test_the_smallest_adapter_need_not_wait() -> None:
    """Of two objectives it has one end of the front, whatever the skill of the others: one place in
    front of it is all that they can get."""
    state = state_of(2, survival_rate="0.5")
    genomes = tuple(Genome(name, 0, Genes()) for name in "abcd")
    state.history.apply(GenerationStarted(0, genomes))
    for name, size in zip("abcd", (4, 1, 2, 3), strict=True):
        before = make_result(name, {"trainable_parameters": size}, stage="-", checkpoint="there")
        state.history.apply(StageCompleted(0, before))
    rung = CertainPromotions(state, state.stages[0], 0, genomes)
    bring(state.history, "a", (3, 12, 0, 0.5))
    assert rung.so_far() == []
    bring(state.history, "b", (0, 3, 0, 0.5))
    assert [genome.id for genome in rung.so_far()] == ["b"]


def test_of_equals_the_order_of_ids_decides() -> None:
    state = state_of(1, survival_rate="0.5")
    genomes = tuple(Genome(name, 0, Genes()) for name in "abcd")
    state.history.apply(GenerationStarted(0, genomes))
    rung = CertainPromotions(state, state.stages[0], 0, genomes)
    for name in "dacb":
        assert "b" not in {genome.id for genome in rung.so_far()}
        bring(state.history, name, (1, 0, 0, 0.5))
    assert [genome.id for genome in rung.so_far()] == ["a", "b"]


def test_measured_figures_make_nobody_certain() -> None:
    """They are made equal to others within their spread, and so to figures that are missing."""
    chosen = [{"metric": "latency_ms", "direction": "minimize"}]
    config = make_config(objectives=chosen, hyperband_config={"rungs": "fixed"})
    state = RunState(config, History())
    genomes = tuple(Genome(name, 0, Genes()) for name in "abcd")
    state.history.apply(GenerationStarted(0, genomes))
    stage = replace(state.stages[1], name="S0", stop_when=())
    for name, figure in zip("abc", (1.0, 9.0, 9.0), strict=True):
        result = make_result(name, {"latency_ms": figure}, checkpoint="there")
        state.history.apply(StageCompleted(0, result))
    assert CertainPromotions(state, stage, 0, genomes).so_far() == []
