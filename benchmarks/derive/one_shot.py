"""What is made of a finished run's adapters after the fact, without any search: a uniform soup, and
truncations to every halving of a rank."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from coralx.api.session import Outcome, run_config
from coralx.backends.protocol import Backend, create
from coralx.engine.state import RunState
from coralx.errors import NotDerivable
from coralx.records.derivations import Derivation
from coralx.records.genomes import Genome
from coralx.records.jobs import DeriveJob, MeasureJob
from coralx.records.results import Metrics
from coralx.storage.history import History
from coralx.storage.ledger import Ledger

SOUP_OF = 4
"""Finishers that go into the soup, the best on validation."""


@dataclass(frozen=True)
class Candidate:
    """An adapter with its figures."""

    name: str
    origin: str
    """The operator; empty for one that was trained."""
    validation: Metrics
    test_auroc: float


@dataclass(frozen=True)
class Baselines:
    """What the two bring in addition to the run's own front, with the seconds that scoring took."""

    soup: tuple[Candidate, ...]
    truncations: tuple[Candidate, ...]
    soup_seconds: float
    truncation_seconds: float


def baselines_of(outcome: Outcome) -> Baselines:
    """Derive and measure both, from a run that has kept all its checkpoints."""
    config = run_config(outcome.layout)
    state = RunState(config, History(Ledger.read_events(outcome.layout.ledger)))
    finished = sorted(state.finished(), key=lambda name: -_auroc(state, name))
    started = state.history.started
    if started is None or not finished:
        return Baselines((), (), 0.0, 0.0)
    backend = create(started.facts.backend)
    settings = started.settings
    backend.prepare(config, settings.precision, settings.threads_per_worker, lambda _: None)
    maker = _Maker(backend, state, outcome)
    began = time.monotonic()
    soup = maker.make(_soup(state, finished[:SOUP_OF]))
    between = time.monotonic()
    truncations = maker.make(_truncations(state))
    return Baselines(soup, truncations, between - began, time.monotonic() - between)


def _auroc(state: RunState, genome: str) -> float:
    return state.history.results[genome, state.last_stage].metrics["auroc"] or 0.0


def _soup(state: RunState, names: Sequence[str]) -> list[Derivation]:
    if len(names) < 2:
        return []
    rank = max(state.history.genomes[name].genes.rank for name in names)
    share = 1.0 / len(names)
    return [Derivation("soup", tuple(names), rank=rank, weights=(share,) * len(names))]


def _truncations(state: RunState) -> list[Derivation]:
    ranks = {name: state.history.genomes[name].genes.rank for name in state.front()}
    return [
        Derivation("truncate", (name,), rank=own >> halvings)
        for name, own in ranks.items()
        for halvings in range(1, own.bit_length())
    ]


class _Maker:
    """Derives and measures on a backend that is prepared."""

    def __init__(self, backend: Backend, state: RunState, outcome: Outcome) -> None:
        self._backend, self._state, self._layout = backend, state, outcome.layout
        self._count = 0

    def make(self, derivations: Sequence[Derivation]) -> tuple[Candidate, ...]:
        """Those of the derivations that can be made."""
        made = (self._one(derivation) for derivation in derivations)
        return tuple(candidate for candidate in made if candidate is not None)

    def _one(self, derivation: Derivation) -> Candidate | None:
        history, last = self._state.history, self._state.last_stage
        self._count += 1
        first = history.genomes[derivation.sources[0]]
        genes = replace(first.genes, rank=derivation.rank or first.genes.rank)
        name = f"one-shot-{self._count:02d}"
        genome = Genome(name, 0, genes, derivation.sources, derived=derivation)
        folder = str(self._layout.checkpoint(name, last))
        sources = tuple(str(self._layout.checkpoint(s, last)) for s in derivation.sources)
        job = DeriveJob(genome, last, sources, history.joint_steps(*derivation.sources), folder)
        try:
            derived = self._backend.derive(job)
        except NotDerivable:
            return None
        figures = derived.result.metrics
        measured = self._backend.measure(MeasureJob(derived.genome, folder, figures))
        value = measured.test["auroc"].value
        return Candidate(name, derivation.operator, figures, 0.5 if value is None else value)
