"""What the active adapter is worth: figures of the validation rows, and the final measurement."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from coralx.backends.protocol import Beat
from coralx.config.metric_catalogue import SPREAD, is_function, metric_entry, split_metric_name
from coralx.config.schema import Config
from coralx.metrics.compute import (
    FITTED_NAMES,
    Figures,
    figures,
    fitted_on_validation,
    task_figures,
)
from coralx.metrics.false_positive_cost import positives, suspicion
from coralx.metrics.intervals import intervals
from coralx.metrics.row_scores import RowScores, write_scores
from coralx.metrics.safety import flagged
from coralx.metrics.standard_errors import standard_errors
from coralx.records.jobs import MeasureJob
from coralx.records.results import Interval, Measurement, Metrics
from coralx.system.files import make_parents, write_atomically
from coralx.tasks.protocol import Encoded
from coralx.text import counted
from coralx.training import cost_metrics
from coralx.training.adapters import TEMPLATE
from coralx.training.inference import generated_answers, heaviest_batch, predict
from coralx.training.task_data import Material
from coralx.training.task_parts import EvalSplit, TaskPart
from coralx.training.user_metric_figures import Split, UserMetricFigures, name_for_task


class Evaluation:
    """Scores the model as it stands, in the context `scoring`; what it costs is measured in the
    context `measuring`, as where it is put to use.

    Raises ConfigError where a metric of the user's cannot be found, or fails on the predictions
    that each is tried with.
    """

    def __init__(
        self,
        config: Config,
        model: Any,
        material: Material,
        scoring: Callable[[], AbstractContextManager[Any]],
        device: torch.device,
        measuring: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        self._model = model
        self._parts = material.parts
        self._scoring = scoring
        self._device = device
        self._measuring = measuring
        self._seed = config.experiment.seed
        named = sorted({split_metric_name(name)[0] for name in config.named_metrics})
        self._measured = [name for name in named if metric_entry(name).source == "measurement"]
        own = [name for name in named if is_function(name)]
        self._user_metrics = UserMetricFigures(config, own, self._parts)

    def validated(self, limit: int | None, beat: Beat, keep: str | None = None) -> Figures | None:
        """The figures of the first `limit` validation rows, which are in a stratified order, and of
        as many attacks and clean rows, with their standard errors; None where a score is not
        finite. The scores are kept in the file `keep`, if one is named."""
        if keep is not None:
            make_parents(Path(keep), 2)  # the genome's folder among all predictions
        scores = self._scores("validation", limit, beat, keep)
        if keep is not None:
            write_scores(Path(keep), scores)
            self._describe_rows(Path(keep).parent.parent / "rows.jsonl")
        if not all(rows.is_finite for rows in scores.values()):
            return None
        computed = figures(scores)
        own = self._user_metrics.figures("validation", scores, beat)
        return {**computed, **standard_errors(scores), **own, **self._measurements(beat)}

    def validated_with_remarks(
        self, limit: int | None, beat: Beat, keep: str | None = None
    ) -> tuple[Figures | None, tuple[str, ...]]:
        """The same, and remarks on figures that are undefined."""
        computed = self.validated(limit, beat, keep)
        if computed is None:
            return None, ()
        splits = [part.splits["validation"].rows for part in self._parts]
        rows = sum(len(split.first(limit).ids) for split in splits)
        return computed, remarks_on_undefined(computed, rows, self._user_metrics.why_undefined)

    def loss(self, limit: int | None, beat: Beat) -> float | None:
        """`eval_loss` of the first `limit` validation rows; None where a score is not finite."""
        losses = []
        for part in self._parts:
            rows = self._scored(part, part.splits["validation"].rows.first(limit), beat)
            losses.append(task_figures(rows)["eval_loss"])
        known = [loss for loss in losses if loss is not None]
        return float(np.mean(known)) if len(known) == len(losses) else None

    def measured(self, job: MeasureJob, costs: Metrics, beat: Beat) -> Measurement:
        """Figures of both splits. The scores of the test split are kept where the job says so; its
        threshold and temperature are those that validation gives."""
        validation = self._validation_figures(job, costs, beat)
        scores = {}
        for name, rows in self._scores("test", None, beat, job.scores).items():
            scores[name] = _with_operating_point(rows, name, validation)
        for part in self._parts:
            suspicions = self._positives(part, beat)
            scores[part.name] = replace(scores[part.name], positives=suspicions)
        digest = write_scores(Path(job.scores), scores) if job.scores is not None else None
        own = self._user_metrics.figures("test", scores, beat)
        exact = {name: Interval(value, value, value) for name, value in costs.items()}
        test = {
            **intervals(scores, self._seed),
            **{name: Interval(value, None, None) for name, value in own.items()},
            **_with_spread(self._measurements(beat)),
            **exact,
        }
        return Measurement(job.genome.id if job.genome else None, validation, test, digest)

    def _validation_figures(self, job: MeasureJob, costs: Metrics, beat: Beat) -> Metrics:
        """The figures that the job brings along, where they hold all that the test split needs of
        them; else computed anew, under those that it brings."""
        validation = job.validation
        if validation is not None and all(key in validation for key in self._operating_points):
            return validation
        scores = self._scores("validation", None, beat)
        own = self._user_metrics.figures("validation", scores, beat)
        computed = {**figures(scores), **own, **costs}
        # Memory and latency are not measured again where the last stage has done so.
        return {**computed, **(validation or self._measurements(beat))}

    @property
    def _operating_points(self) -> list[str]:
        """The names of threshold and temperature, of each task that has classes."""
        return [
            name_for_task(key, part.name)
            for part in self._parts
            if part.labels
            for key in FITTED_NAMES.values()
        ]

    def _scores(
        self, split: Split, limit: int | None, beat: Beat, keep: str | None = None
    ) -> dict[str, RowScores]:
        """Each task's scores of a split and of all that belongs to it. Validation has threshold and
        temperature of its own. Beside the file `keep` the answers are kept, if there are any."""
        scores: dict[str, RowScores] = {}
        answers: list[dict[str, object]] = []
        for part in self._parts:
            data = part.splits[split].first(limit)
            rows = replace(self._scored(part, data.rows, beat), groups=data.groups)
            rows = self._with_attacks(rows, part, data, answers, beat)
            rows = self._with_clean(rows, part, data, beat)
            scores[part.name] = fitted_on_validation(rows, rows) if split == "validation" else rows
        if keep is not None and answers:
            _write_lines(Path(keep).with_suffix(".answers.jsonl"), answers)
        return scores

    def _describe_rows(self, path: Path) -> None:
        """Write down, once in a run, which rows the scores are of."""
        if not path.exists():
            _write_lines(path, self._described_rows())

    def _described_rows(self) -> Iterator[Mapping[str, object]]:
        for part in self._parts:
            for split, data in part.splits.items():
                yield from data.described(part.name, split)

    def _scored(self, part: TaskPart, data: Encoded, beat: Beat) -> RowScores:
        return part.task.by_row(predict(self._model, part.task, data, self._scoring, beat), data)

    def _positives(self, part: TaskPart, beat: Beat) -> NDArray[np.float64] | None:
        """How suspicious the positive validation rows look, by which the threshold was chosen: the
        threshold's own uncertainty follows from them. None for a task without classes."""
        data = part.splits["validation"].rows
        if not part.labels:
            return None
        positive = data.where(data.labels > 0)
        if not positive.ids:
            return np.zeros(0)
        return positives(self._scored(part, positive, beat).scores, positive.labels)

    def _with_clean(
        self, rows: RowScores, part: TaskPart, data: EvalSplit, beat: Beat
    ) -> RowScores:
        """The rows, and how the clean hold-out looks."""
        if data.clean is None:
            return rows
        scores = self._scored(part, data.clean, beat).scores
        return replace(rows, clean=suspicion(scores), clean_flagged=flagged(scores))

    def _with_attacks(
        self,
        rows: RowScores,
        part: TaskPart,
        data: EvalSplit,
        answers: list[dict[str, object]],
        beat: Beat,
    ) -> RowScores:
        """The rows, and what became of the attacks; what was answered is appended to `answers`."""
        if data.attacks is None:
            return rows
        rows = replace(rows, sources=data.sources)
        if part.answers is None or part.judge is None:
            scores = self._scored(part, data.attacks, beat).scores
            return replace(rows, withstood=flagged(scores), attacked=suspicion(scores))
        texts = generated_answers(self._model, part.answers, data.attacks, self._scoring, beat)
        verdicts = []
        for prompt, answer in zip(data.prompts, texts, strict=True):
            beat()  # a judge may take its time
            verdict = part.judge(prompt, answer)
            verdicts.append(verdict)
            answers.append(
                {"task": part.name, "prompt": prompt, "answer": answer, "withstood": verdict}
            )
        return replace(rows, withstood=np.asarray(verdicts, dtype=np.float64))

    def _measurements(self, beat: Beat) -> Figures:
        """Memory and latency, where the config names them: of the same rows in every stage."""
        part = self._parts[0]
        data = part.splits["validation"].rows
        measured: Figures = {}
        for name in self._measured:
            rows = list(range(min(cost_metrics.LATENCY_ROWS, len(data.ids))))
            if name == "memory":
                rows = heaviest_batch(part.task, data)

            def work(rows: list[int] = rows) -> None:
                beat()
                part.task.scores(self._model, data, rows)

            self._model.eval()
            with torch.no_grad(), self._scoring(), self._measuring():
                if name == "memory":
                    held = cost_metrics.held_bytes(self._model, TEMPLATE)
                    measured |= cost_metrics.memory(work, self._device, held)
                else:
                    measured |= cost_metrics.latency(work, self._device)
        return measured


def _with_operating_point(rows: RowScores, task: str, validation: Metrics) -> RowScores:
    """The rows with the threshold and temperature that validation gave."""
    if rows.labels is None:
        return rows
    names = [name_for_task(name, task) for name in FITTED_NAMES.values()]
    threshold, temperature = (validation.get(name) for name in names)
    return replace(rows, threshold=threshold, temperature=temperature)


def _with_spread(measurements: Metrics) -> dict[str, Interval]:
    """Measured figures in the middle of their spread."""
    intervals = {}
    for name, value in measurements.items():
        spread = measurements.get(name + SPREAD)
        if value is not None and spread is not None:
            intervals[name] = Interval(value, value - spread / 2, value + spread / 2)
    return intervals


def _write_lines(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """JSON lines, all of them or none."""
    make_parents(path, 1)
    write_atomically(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def remarks_on_undefined(figures: Metrics, rows: int, why: Mapping[str, str]) -> tuple[str, ...]:
    """Remarks on figures that have no value on these rows, each with the reason: that in `why`, or
    the catalogue's."""
    reasons: dict[str, list[str]] = {}
    for name, value in figures.items():
        if value is None:
            reasons.setdefault(why.get(name, metric_entry(name).undefined), []).append(name)
    scored = f"the {counted(rows, 'validation row')} that {'is' if rows == 1 else 'are'} scored"
    return tuple(
        f"{', '.join(names)} undefined on {scored}: {reason}" for reason, names in reasons.items()
    )
