"""What the active adapter is worth: figures of the validation rows, and the final measurement."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from coralx.backends.protocol import Beat, unheard
from coralx.config.metric_catalogue import OF_TASK, SPREAD, described, is_function, of_task
from coralx.config.schema import Config
from coralx.metrics.compute import SETTLED, Figures, figures, settled, task_figures
from coralx.metrics.false_positive_cost import positives, suspicion
from coralx.metrics.intervals import intervals
from coralx.metrics.row_scores import RowScores, Said, write_scores
from coralx.metrics.safety import flagged, withstood
from coralx.metrics.task_skill import macro
from coralx.metrics.user_metrics import Predictions
from coralx.records.jobs import MeasureJob
from coralx.records.results import Interval, Measurement, Metrics
from coralx.system.files import make_parents, write_atomically
from coralx.tasks.protocol import Encoded
from coralx.text import counted
from coralx.training import cost_metrics as measuring
from coralx.training import user_functions as functions
from coralx.training.inference import answered, heaviest_batch, predict
from coralx.training.task_data import Judged, Material, Part

Split = Literal["validation", "test"]
Number = TypeVar("Number", np.float64, np.int64)


class Evaluation:
    """Scores the model as it stands, in the context `scoring`.

    `why_undefined` tells it of those metrics of the user's that had no value the last time.

    Raises ConfigError where a metric of the user's cannot be found, or fails on predictions that
    know nothing, with which each is tried before anything is trained.
    """

    def __init__(
        self,
        config: Config,
        model: Any,
        material: Material,
        scoring: Callable[[], AbstractContextManager[Any]],
        device: torch.device,
    ) -> None:
        self._model = model
        self._parts = material.parts
        self._scoring = scoring
        self._device = device
        self._seed = config.experiment.seed
        named = sorted({of_task(name)[0] for name in config.named_metrics})
        self._measured = [name for name in named if described(name).source == "measurement"]
        self._own = {n: functions.metric(config, n) for n in named if is_function(n)}
        self.why_undefined: dict[str, str] = {}
        self._own_figures(
            "validation", {part.name: _unknowing(part) for part in self._parts}, unheard
        )

    def validated(self, limit: int | None, beat: Beat, keep: str | None = None) -> Figures | None:
        """The figures of the first `limit` validation rows, which are in a stratified order, and of
        as many attacks and clean rows; None where a score is no finite number. At the path `keep`
        is kept what the model says about each."""
        if keep is not None:
            make_parents(Path(keep), 2)  # the genome's folder among all predictions
        said = self._said("validation", limit, beat, keep)
        if keep is not None:
            write_scores(Path(keep), said)
            self._describe_rows(Path(keep).parent.parent / "rows.jsonl")
        if not all(rows.is_finite for rows in said.values()):
            return None
        found = figures(said)
        own = self._own_figures("validation", said, beat)
        return {**found, **own, **self._measurements(beat)}

    def loss(self, limit: int | None, beat: Beat) -> float | None:
        """`eval_loss` of the first `limit` validation rows; None where a score is not finite."""
        found = []
        for part in self._parts:
            rows = self._scored(part, part.splits["validation"].rows.first(limit), beat)
            found.append(task_figures(rows)["eval_loss"])
        known = [value for value in found if value is not None]
        return float(np.mean(known)) if len(known) == len(found) else None

    def measured(self, job: MeasureJob, costs: Metrics, beat: Beat) -> Measurement:
        """Figures of both splits; what the adapter says about each row of the test split is
        kept. What is settled on validation holds for the test split."""
        validation = job.validation
        if validation is None or any(key not in validation for key in self._settled_keys):
            by = self._said("validation", None, beat)
            found = {**figures(by), **self._own_figures("validation", by, beat), **costs}
            validation = {**found, **(validation or self._measurements(beat))}
        said = {
            name: _settled_as(rows, name, validation)
            for name, rows in self._said("test", None, beat, job.scores).items()
        }
        said = {
            part.name: replace(said[part.name], positives=self._positives(part, beat))
            for part in self._parts
        }
        kept = write_scores(Path(job.scores), said) if job.scores is not None else None
        own = self._own_figures("test", said, beat)
        exact = {name: Interval(value, value, value) for name, value in costs.items()}
        measured = {
            **intervals(said, self._seed),
            **{name: Interval(value, None, None) for name, value in own.items()},
            **_with_spread(self._measurements(beat)),
            **exact,
        }
        return Measurement(job.genome.id if job.genome else None, validation, measured, kept)

    @property
    def _settled_keys(self) -> list[str]:
        return [
            _of(part.name, key) for part in self._parts if part.labels for key in SETTLED.values()
        ]

    def _said(
        self, split: Split, limit: int | None, beat: Beat, keep: str | None = None
    ) -> dict[str, RowScores]:
        """What the model says about each task's split and all that belongs to it. Validation
        settles threshold and temperature by itself."""
        found: dict[str, RowScores] = {}
        answers: list[dict[str, object]] = []
        for part in self._parts:
            judged = part.splits[split].first(limit)
            rows = replace(self._scored(part, judged.rows, beat), groups=judged.groups)
            rows = self._with_clean(
                self._with_attacks(rows, part, judged, answers, beat), part, judged, beat
            )
            found[part.name] = settled(rows, rows) if split == "validation" else rows
        if keep is not None and answers:
            _write_lines(Path(keep).with_suffix(".answers.jsonl"), answers)
        return found

    def _describe_rows(self, path: Path) -> None:
        """Tell, once in a run, which rows the scores are of."""
        if not path.exists():
            splits = [(part.name, *split) for part in self._parts for split in part.splits.items()]
            _write_lines(path, (row for n, s, judged in splits for row in judged.described(n, s)))

    def _scored(self, part: Part, data: Encoded, beat: Beat) -> RowScores:
        return part.task.by_row(predict(self._model, part.task, data, self._scoring, beat), data)

    def _positives(self, part: Part, beat: Beat) -> NDArray[np.float64] | None:
        """How suspicious the positive validation rows look, on which the threshold was settled:
        how far it may be off is told by them."""
        data = part.splits["validation"].rows
        if not part.labels:
            return None
        wanted = data.where(data.labels > 0)
        if not wanted.ids:
            return np.zeros(0)
        return positives(self._scored(part, wanted, beat).scores, wanted.labels)

    def _with_clean(self, rows: RowScores, part: Part, judged: Judged, beat: Beat) -> RowScores:
        if judged.clean is None:
            return rows
        scores = self._scored(part, judged.clean, beat).scores
        return replace(rows, clean=suspicion(scores), clean_flagged=flagged(scores))

    def _with_attacks(
        self,
        rows: RowScores,
        part: Part,
        judged: Judged,
        answers: list[dict[str, object]],
        beat: Beat,
    ) -> RowScores:
        """The rows, and what became of the attacks; what was answered is appended to `answers`."""
        if judged.attacks is None:
            return rows
        rows = replace(rows, sources=judged.sources)
        if part.answers is None or part.judge is None:
            scores = self._scored(part, judged.attacks, beat).scores
            return replace(rows, withstood=flagged(scores), attacked=suspicion(scores))
        told = answered(self._model, part.answers, judged.attacks, self._scoring, beat)
        verdicts = []
        for prompt, answer in zip(judged.prompts, told, strict=True):
            beat()  # a judge may take its time
            verdicts.append(part.judge(prompt, answer))
        answers += [
            {"task": part.name, "prompt": prompt, "answer": answer, "withstood": verdict}
            for prompt, answer, verdict in zip(judged.prompts, told, verdicts, strict=True)
        ]
        return replace(rows, withstood=np.asarray(verdicts, dtype=np.float64))

    def _own_figures(self, split: Split, said: Said, beat: Beat) -> Figures:
        """The figures of the user's own metrics, as those of the catalogue."""
        by_task: dict[str, dict[str, NDArray[np.float64]]] = {}
        self.why_undefined = {}
        for part in self._parts:
            given = _given(part, split, said[part.name])
            own = by_task[part.name] = {}
            for name, metric in self._own.items():
                beat()  # it may take its time
                value = metric(given)
                own[name] = np.array(np.nan if value is None else value)
                if metric.undefined:
                    for key in (name, _of(part.name, name)):
                        self.why_undefined.setdefault(key, metric.undefined)
        found = macro(by_task)
        return {name: float(v) if np.isfinite(v) else None for name, v in found.items()}

    def _measurements(self, beat: Beat) -> Figures:
        """Memory and latency, where the config names them: of the same rows in every stage."""
        part = self._parts[0]
        data = part.splits["validation"].rows
        found: Figures = {}
        for name in self._measured:
            rows = list(range(min(measuring.LATENCY_ROWS, len(data.ids))))
            measure = measuring.latency
            if name == "memory":
                rows, measure = heaviest_batch(part.task, data), measuring.memory

            def work(rows: list[int] = rows) -> None:
                beat()
                part.task.scores(self._model, data, rows)

            self._model.eval()
            with torch.no_grad(), self._scoring():
                found |= measure(work, self._device)
        return found


def _of(task: str, name: str) -> str:
    return f"{name}{OF_TASK}{task}" if task else name


def _settled_as(rows: RowScores, task: str, validation: Metrics) -> RowScores:
    """The rows with what validation settled."""
    if rows.labels is None:
        return rows
    threshold, temperature = (validation.get(_of(task, name)) for name in SETTLED.values())
    return replace(rows, threshold=threshold, temperature=temperature)


def _given(part: Part, split: Split, rows: RowScores) -> Predictions:
    """What a metric of the user's is given: copies, which it cannot change."""
    examples = part.splits[split].examples[: len(rows.scores)]
    none = np.zeros(0)
    classified = rows.labels is not None
    failed = withstood(rows)
    return Predictions(
        task=part.name,
        split=split,
        texts=tuple(example.text for example in examples),
        groups=tuple(example.group for example in examples),
        classes=part.labels,
        probabilities=_frozen(rows.scores if classified else none.reshape(0, 0)),
        labels=_frozen(rows.labels if rows.labels is not None else none.astype(np.int64)),
        losses=_frozen(none.reshape(0, 2) if classified else rows.scores),
        withstood=_frozen(none if failed is None else failed),
    )


def _frozen(values: NDArray[Number]) -> NDArray[Number]:
    copied = values.copy()
    copied.setflags(write=False)
    return copied


def _unknowing(part: Part) -> RowScores:
    """What a model would say of the validation split that knows nothing."""
    judged = part.splits["validation"]
    rows = len(judged.rows.ids)
    attacks = None if judged.attacks is None else np.zeros(len(judged.attacks.ids))
    if not part.labels:
        return RowScores(np.ones((rows, 2)), withstood=attacks)
    even = np.full((rows, len(part.labels)), 1.0 / len(part.labels))
    return RowScores(even, judged.rows.labels, judged.groups, attacks)


def _with_spread(measurements: Metrics) -> dict[str, Interval]:
    """Measured figures in the middle of their spread."""
    found = {}
    for name, value in measurements.items():
        spread = measurements.get(name + SPREAD)
        if value is not None and spread is not None:
            found[name] = Interval(value, value - spread / 2, value + spread / 2)
    return found


def _write_lines(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """JSON lines, whole or not at all."""
    make_parents(path, 1)
    write_atomically(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def undefined(figures: Metrics, rows: int, why: Mapping[str, str]) -> tuple[str, ...]:
    """Remarks on figures that these rows cannot tell, each with the reason: that in `why`, or the
    catalogue's."""
    reasons: dict[str, list[str]] = {}
    for name, value in figures.items():
        if value is None:
            reasons.setdefault(why.get(name, described(name).undefined), []).append(name)
    return tuple(
        f"{', '.join(names)} undefined on the {counted(rows, 'validation row')} that "
        f"{'is' if rows == 1 else 'are'} scored: {reason}"
        for reason, names in reasons.items()
    )
