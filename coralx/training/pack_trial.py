"""Before a run begins: can genomes be trained together on this base, and does it pay?"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import torch

from coralx.backends.protocol import Say, no_beat
from coralx.errors import ConfigError
from coralx.records.genomes import ALL_LAYERS, Genes, Genome
from coralx.records.jobs import Horizon, Job
from coralx.records.run_facts import Footprint
from coralx.rng import derive_seed
from coralx.training.out_of_memory import free, is_shortage, reason_of
from coralx.training.packed_loop import Member, PackedLoop
from coralx.training.packed_stage import Adapter
from coralx.training.stage_training import StageTraining
from coralx.training.trial_batch import ends_of

SIZES = (2, 4, 8, 16)
"""The packs that are tried on a GPU, each only where the one before was worth it."""

CPU_SIZE, CPU_ROWS = 4, 4
"""On a CPU: the pack that is tried, and the most rows a step for which it is. From 8 rows on, packs
gained less than a tenth on the one CPU that was measured, and trying them takes seconds."""

WORTH_IT = 1.15
"""So many times faster than alone, or than a pack of half the size, must a genome's step be."""

REPEATS = 2
STEPS = 1 << 10
"""The last step of a trial, which it never reaches."""

TOLERANCE = {"fp32": 1e-3, "bf16": 0.1, "fp16": 0.1}
"""The relative difference of gradients that rounding explains."""


@dataclass(frozen=True)
class PackTrial:
    """Trains trial genomes together, by the code that jobs use; leaves nothing behind."""

    training: StageTraining
    adapter: Adapter
    footprint: Footprint
    precision: str

    def decided(self, wanted: int | None, say: Say) -> tuple[int, str]:
        """How many genomes to train together, and why: as many as `wanted`, or for None as many as
        pay. Raises ConfigError where more than one are wanted and the base does not allow it."""
        small, large = (
            replace(genes, use_dora=False, layers=ALL_LAYERS)  # others are never in a pack
            for genes in ends_of(self.training.config, self.footprint)
        )
        on_cpu = self.training.model.device.type == "cpu"
        if wanted is None and on_cpu and large.batch_size > CPU_ROWS:
            return 1, f"{large.batch_size} rows a step are enough for a CPU"
        try:
            pack, reason = (
                self._fastest(large, say) if wanted is None else (wanted, "as configured")
            )
            obstacle = self._disturbed() or self._difference((small, large)) if pack > 1 else ""
        except Exception as error:  # not every base takes its rows as they are handed over here
            obstacle = f"genomes cannot be trained together on this base: {reason_of(error)}"
        if obstacle and wanted is not None:
            raise ConfigError("config", [f"runtime.pack: {obstacle}"], "Set runtime.pack: 1.")
        return (1, obstacle) if obstacle else (pack, reason)

    def _members(self, stack: ExitStack, genes: Sequence[Genes]) -> list[Member]:
        """A trial genome of each of the `genes`, its weights no longer those of a fresh one."""
        members = []
        for number, own in enumerate(genes):
            genome = Genome(f"trial-{number}", 0, own)
            job = Job(genome, "trial", 0, STEPS, Horizon(STEPS, 0), 1.0, None)
            name = stack.enter_context(self.adapter(genome, own.shape))
            stage = self.training.begin(job, no_beat)
            drawing = torch.Generator().manual_seed(derive_seed("pack", number))
            for parameter in stage.trainer.parameters:
                noise = torch.randn(parameter.shape, generator=drawing) * 0.02
                parameter.data += noise.to(parameter)
            members.append(Member(job, name, stage.trainer, stage.trace, stage.keep))
        return members

    def _disturbed(self) -> str:
        """What other adapters in the model would disturb; empty where nothing is."""
        on_gpu = self.training.model.device.type == "cuda"
        if on_gpu and "memory" in self.training.config.named_metrics:
            return "the metric `memory` would count the adapters of all genomes of a pack"
        return ""

    def _difference(self, genes: Sequence[Genes]) -> str:
        """How trial genomes train otherwise together than alone; empty where they do not.

        Together they are tried twice: what lies below all adapters is shared from the second on.
        """
        model = self.training.model
        with ExitStack() as stack:
            members = self._members(stack, [*genes])
            rows = members[0].trainer.rows_of(0).tolist()
            wanted = []
            for member in members:
                model.set_adapter(member.name)
                model.train()
                draw = member.job.genome.draw("step", 0)
                member.trainer.backward(rows, draw, member.trace)
                wanted.append(_gradients(member))
            loop = PackedLoop(model, members)
            loop.set_trained(trained=True)
            for _ in range(2):
                loop.backward(members, rows)
                found = [_gradients(member) for member in members]
        for one, other in zip(found, wanted, strict=True):
            difference = float((one - other).norm() / other.norm())
            if not difference <= TOLERANCE[self.precision]:
                return (
                    "on this base, gradients of genomes trained together differ by "
                    f"{difference:.1%} from those alone"
                )
        return ""

    def _fastest(self, genes: Genes, say: Say) -> tuple[int, str]:
        """The largest pack that was worth it, with what it gained."""
        say("measuring whether genomes are faster trained together")
        on_cpu = self.training.model.device.type == "cpu"
        population = self.training.config.evolution.population_size
        best, gain = 1, 1.0
        for size in (CPU_SIZE,) if on_cpu else SIZES:
            if size > population:
                break
            tried = self._gain(genes, size)
            if tried < WORTH_IT * gain:
                if best == 1:
                    return 1, f"{size} genomes together train {tried:.2f} times as fast as alone"
                break
            best, gain = size, tried
        return best, f"they train {gain:.2f} times as fast as alone"

    def _gain(self, genes: Genes, size: int) -> float:
        """How many times faster a genome's step is in a pack of that size; 0 where memory does not
        suffice for it."""
        try:
            with ExitStack() as stack:
                return self._measured(self._members(stack, [genes] * size))
        except Exception as error:
            if not is_shortage(error):
                raise
        free()
        return 0.0

    def _measured(self, members: Sequence[Member]) -> float:
        """The same; steps alone and together take turns."""
        loop = PackedLoop(self.training.model, members)
        first = members[0]

        def one_step() -> None:
            first.trainer.step(first.job, first.step, first.trace)

        alone, together = list[float](), list[float]()
        for _ in range(1 + REPEATS):
            self.training.model.set_adapter(first.name)
            self.training.model.train()
            alone.append(self._seconds(one_step))
            loop.set_trained(trained=True)
            together.append(self._seconds(lambda: loop.step(members)) / len(members))
        if loop.at_once < len(members):  # it ran out of memory
            return 0.0
        # The first round warms up.
        return statistics.median(alone[1:]) / statistics.median(together[1:])

    def _seconds(self, work: Callable[[], object]) -> float:
        """What the work takes: on a CPU, of its time, as others may use it, too."""
        device = self.training.model.device
        if device.type == "cpu":
            began = time.process_time()
            work()
            return time.process_time() - began
        began = time.monotonic()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.monotonic() - began


def _gradients(member: Member) -> torch.Tensor:
    """A copy of a genome's gradients, all in one, on the CPU; they are gone afterwards."""
    parameters = member.trainer.parameters
    flat = [p.grad.detach().flatten().float().cpu() for p in parameters if p.grad is not None]
    member.trainer.optimizer.zero_grad(set_to_none=True)
    return torch.cat(flat)
