"""What the workers of `--gpu-check` are given to train."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from coralx.backends.choice import require_available
from coralx.doctor.check_bench import Bench, Trial
from coralx.doctor.check_subject import Scale, Subject, with_runtime
from coralx.errors import CoralXError
from coralx.records.genomes import Genes, Genome
from coralx.records.jobs import Horizon, Job
from coralx.records.run_facts import Facts

EVAL_ROWS = 16
WHOLE, PART, CUT, FAST, LONG = "whole", "part", "cut", "fast", "long"
"""The genomes: with an adapter on all layers, on attention alone, whose stage is cut, and two whose
speed is taken, after others for which kernels may have been compiled; the last of twice the steps.
"""

GENES = replace(Genes(), rank=16, learning_rate=5e-4)
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")


@dataclass(frozen=True)
class Context:
    """A check under way."""

    bench: Bench
    subject: Subject
    scale: Scale
    folder: Path
    """For checkpoints and answers."""
    tested: str = "unsloth"
    """The backend that is checked against `reference`."""
    reference: str = "peft"

    @property
    def obstacle(self) -> str | None:
        """Why the tested backend cannot train the base; None where it can."""
        try:
            require_available(self.subject.sft, self.tested)
        except CoralXError as error:
            return error.message
        return None

    @property
    def backend(self) -> str:
        """The tested backend, or the reference where that one cannot train."""
        return self.reference if self.obstacle else self.tested

    def answers(self, backend: str) -> Path:
        """Where the answers of the long texts' trial lie."""
        return self.folder / backend / "part" / "scores.answers.jsonl"

    def checkpoint(self, name: str) -> Path:
        """Where a job of the genome whose stage is cut leaves its checkpoint."""
        return self.folder / "checkpoints" / name


def label_tokens(context: Context, backend: str) -> Trial:
    """Two genomes on short texts."""
    batch = context.subject.label_tokens.training.batch_size

    def jobs(facts: Facts) -> list[Job]:
        return _two(facts, context.scale.steps, batch)

    name = f"label-tokens, {backend}"
    return context.bench.trial(name, context.subject.label_tokens, backend, jobs)


def long_texts(context: Context, backend: str) -> Trial:
    """The same on long texts, activations recomputed; the second genome, with an adapter on
    attention alone, then answers prompts. The genome whose stage is cut comes last."""
    config = with_runtime(context.subject.sft, gradient_checkpointing=True)
    batch = config.training.batch_size

    def jobs(facts: Facts) -> list[Job]:
        whole, part = _two(facts, context.scale.steps, batch)
        path = context.answers(backend).with_name("scores.npz")
        cut = _cut(context, batch) if backend == context.backend else ()
        return [whole, replace(part, predictions=str(path)), *cut]

    return context.bench.trial(f"long texts, {backend}", config, backend, jobs)


def speed(
    context: Context, *, checkpointing: bool, block_compile: bool = False, workers: int = 1
) -> Trial:
    """The subject's own task: a genome that warms up, and one whose speed is taken; of several
    workers, each trains one of the latter, all at a time."""
    settings = {"gradient_checkpointing": checkpointing, "block_compile": block_compile}
    config = with_runtime(context.subject.own, **settings)
    name = f"speed, {settings}, {workers}"

    def jobs(facts: Facts) -> list[Job]:  # noqa: ARG001
        batch, steps = config.training.batch_size, context.scale.steps
        fast = _job(FAST, batch, steps, is_scored=False)
        if workers > 1:
            return [replace(fast, stage=f"check {number}") for number in range(workers)]
        jobs = [_job(WHOLE, batch, steps, is_scored=False), fast]
        # What compiling takes for each adapter shows in how much longer twice the steps take.
        return [*jobs, _job(LONG, batch, 2 * steps, is_scored=False)] if block_compile else jobs

    return context.bench.trial(name, config, context.subject.backend, jobs, workers)


def in_4_bits(context: Context, backend: str) -> Trial:
    """Two genomes on long texts, the base's weights stored in 4 bits."""
    config = with_runtime(context.subject.sft, gradient_checkpointing=True, quantization="4bit")
    batch = config.training.batch_size

    def jobs(facts: Facts) -> list[Job]:
        return _two(facts, context.scale.steps, batch)

    return context.bench.trial(f"4-bit, {backend}", config, backend, jobs)


def _two(facts: Facts, steps: int, batch: int) -> list[Job]:
    part = _job(PART, batch, steps)
    genes = replace(part.genome.genes, target_modules=_part_of(facts))
    return [_job(WHOLE, batch, steps), replace(part, genome=replace(part.genome, genes=genes))]


def _part_of(facts: Facts) -> tuple[str, ...]:
    """Names of some of the layers: attention's, or else half of them."""
    linear = facts.footprint.linear if facts.footprint else ()
    names = sorted({name.rsplit(".", 1)[-1] for name, _, _ in linear})
    attention = tuple(name for name in names if name in ATTENTION)
    return attention or tuple(names[: max(1, len(names) // 2)])


def _cut(context: Context, batch: int) -> list[Job]:
    """One genome's steps in one stage, then in two, and then the first again, from what it kept
    before its last step."""
    steps = context.scale.steps
    half = steps // 2
    path = {name: str(context.checkpoint(name)) for name in ("whole", "half", "rest", "again")}
    once = _job(CUT, batch, steps, checkpoint=path["whole"])
    once = replace(once, partial=str(context.checkpoint("partial")))
    return [
        once,
        replace(once, stage="half", last_step=half, checkpoint=path["half"], partial=None),
        replace(
            once,
            stage="rest",
            first_step=half,
            checkpoint=path["rest"],
            resume_from=path["half"],
            partial=None,
        ),
        replace(once, checkpoint=path["again"]),
    ]


def _job(
    genome: str, batch: int, steps: int, *, checkpoint: str | None = None, is_scored: bool = True
) -> Job:
    return Job(
        genome=Genome(genome, 0, replace(GENES, batch_size=batch)),
        stage="check",
        first_step=0,
        last_step=steps,
        horizon=Horizon(steps, 0),
        data_fraction=1.0,
        checkpoint=checkpoint,
        eval_limit=EVAL_ROWS,
        is_scored=is_scored,
    )
