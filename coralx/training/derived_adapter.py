"""One job that derives an adapter without training: made from its sources, scored, saved."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path

from peft import PeftModel
from peft.tuners.lora import LoraLayer

from coralx.backends.protocol import Beat
from coralx.errors import NotDerivable
from coralx.records.derivations import Derivation
from coralx.records.genomes import Genome
from coralx.records.jobs import DeriveJob
from coralx.records.results import Derived, Inheritance, StageResult
from coralx.schedule.derivation_budget import GROUP_ROWS
from coralx.search.module_groups import Groups, module_groups
from coralx.training import adapters
from coralx.training.base_model import Base
from coralx.training.derivations import check_sources, derive, function_lost, without
from coralx.training.resize import Update
from coralx.training.stage_training import StageTraining


@dataclass
class Deriving:
    """Derives one adapter after another on the base that was loaded."""

    model: PeftModel
    base: Base
    training: StageTraining
    removing: Callable[[Genome], AbstractContextManager[str]]
    """After its block, the adapter of the genome, which has the name that it gives, is no longer in
    the model."""

    def run(self, job: DeriveJob, beat: Beat, began: float) -> Derived:
        """Make, score and save the job's adapter. `began` is when work on it did, by the monotonic
        clock. Raises NotDerivable."""
        derivation = job.genome.derived
        if derivation is None:
            raise NotDerivable("it has no derivation")
        sources = [adapters.read(Path(path)) for path in job.sources]
        check_sources(sources)
        if derivation.operator == "drop":
            update, derivation = self._without_groups(job.genome, derivation, sources[0], beat)
        else:
            update = derive(derivation, sources)
        beat()
        genes = replace(job.genome.genes, rank=update.rank)
        genome = replace(job.genome, genes=genes, derived=derivation)
        with self.removing(genome) as name:
            adapters.add_derived(self.model, genome, update, self.base)
            result = self._scored(replace(job, genome=genome), name, beat, began)
        lost = function_lost(derivation, sources, update)
        return Derived(genome, replace(result, inheritance=Inheritance(sources[0].rank, lost)))

    def _scored(self, job: DeriveJob, name: str, beat: Beat, began: float) -> StageResult:
        """Score and save the adapter of that name, which is active."""
        scoring = time.monotonic()
        figures, remarks = self.training.evaluation.validated_with_remarks(
            None, beat, job.predictions
        )
        if figures is None:
            raise NotDerivable("its scores are not finite")
        costs = adapters.costs(self.model, name, Fraction(1))
        scored = time.monotonic()
        self._save(job, name)
        return StageResult(
            genome=job.genome.id,
            stage=job.stage,
            first_step=0,
            last_step=0,
            metrics={**figures, **costs},
            judged_steps=0,
            loss_trend=None,
            train_seconds=0.0,
            eval_seconds=scored - scoring,
            overhead_seconds=time.monotonic() - began - (scored - scoring),
            inherited_steps=job.inherited_steps,
            checkpoint=job.checkpoint,
            notes=remarks,
            rank=job.genome.genes.rank,
        )

    def _save(self, job: DeriveJob, name: str) -> None:
        if job.checkpoint is None or job.genome.derived is None:
            return
        state = {
            "genome": job.genome.id,
            "stage": job.stage,
            "step": 0,
            "inherited_steps": job.inherited_steps,
            "derived": asdict(job.genome.derived),
        }
        adapters.save(Path(job.checkpoint), self.model, name, None, state)

    # -- which modules are worth least -----------------------------------------------------------

    def _without_groups(
        self, genome: Genome, derivation: Derivation, source: Update, beat: Beat
    ) -> tuple[Update, Derivation]:
        """The source without the groups of modules that are worth least, and which these are; those
        that the derivation names already are taken."""
        groups = module_groups(source.stems)
        dropped = derivation.groups or self._least_worth(genome, derivation, source, groups, beat)
        if unknown := [group for group in dropped if group not in groups]:
            raise NotDerivable(f"its source has no group of modules {unknown[0]!r}")
        stems = set[str]().union(*(groups[group] for group in dropped))
        return without(source, stems), replace(derivation, groups=dropped)

    def _least_worth(
        self,
        genome: Genome,
        derivation: Derivation,
        source: Update,
        groups: Groups,
        beat: Beat,
    ) -> tuple[str, ...]:
        with self.removing(genome) as name:
            adapters.add_derived(self.model, genome, source, self.base)

            def loss(stems: Collection[str]) -> float:
                beat()
                with _switched_off(self.model, name, stems):
                    return self.training.training_loss(GROUP_ROWS)

            return tuple(least_worth(groups, derivation.count or 0, loss))


def least_worth(groups: Groups, count: int, loss: Callable[[Collection[str]], float]) -> list[str]:
    """The `count` groups without which the `loss` (of the modules that are switched off) rises
    least, chosen one after the other, each given those before it; at least one module is left.

    Lazily (Minoux 1978): what a group was worth when fewer were off stands for what it is worth now
    until it leads, and is then judged again. Raises NotDerivable where there are too few groups.
    """
    dropped: list[str] = []
    off, everything = frozenset[str](), frozenset[str]().union(*groups.values())
    current = loss(off)
    judged = dict.fromkeys(groups, (-math.inf, -1))  # by how much the loss rose, how many were off
    while len(dropped) < count:
        left = {
            name: stems | off
            for name, stems in groups.items()
            if not stems <= off and stems | off < everything
        }
        if not left:
            raise NotDerivable(
                f"no more than {len(dropped)} groups of modules can be dropped, not {count}"
            )
        best = _leading(left, judged)
        while judged[best][1] < len(dropped):
            judged[best] = loss(left[best]) - current, len(dropped)
            best = _leading(left, judged)
        dropped.append(best)
        off, current = left[best], current + judged[best][0]
    return dropped


def _leading(names: Collection[str], judged: Mapping[str, tuple[float, int]]) -> str:
    return min(names, key=lambda name: (judged[name][0], name))


@contextmanager
def _switched_off(model: PeftModel, adapter: str, stems: Collection[str]) -> Iterator[None]:
    """In the block, the adapter does nothing in these modules."""
    layers = [model.get_submodule(stem) for stem in stems]
    before = [(layer, layer.scaling[adapter]) for layer in layers if isinstance(layer, LoraLayer)]
    for layer, _ in before:
        layer.scaling[adapter] = 0.0
    try:
        yield
    finally:
        for layer, scaling in before:
            layer.scaling[adapter] = scaling
