"""Every figure of a run once more, from the scores that it has kept, by other means.

Nothing of CoralX is used but its file format: plain counting, row by row and pair by pair.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file
from scipy.optimize import brentq
from scipy.special import logsumexp

TOLERANCE = 1e-9
Tensors = dict[str, NDArray[Any]]


@dataclass
class Checked:
    """How many figures were computed anew, and those that came out otherwise."""

    checked: int = 0
    wrong: list[str] = field(default_factory=list)


def disagreements(run: Path) -> Checked:
    """Compare every stage's figures with what its predictions say, and the test figures of front
    and base with their scores."""
    found = Checked()
    for event in map(json.loads, (run / "ledger.jsonl").read_text(encoding="utf-8").splitlines()):
        payload = event["payload"]
        if event["type"] == "StageCompleted":
            result = payload["result"]
            path = run / "predictions" / result["genome"] / f"{result['stage']}.safetensors"
            if result["metrics"] and path.is_file():
                by_task = tasks_of(path)
                _compare(found, f"{result['genome']} {result['stage']}", by_task, result["metrics"])
        if event["type"] == "FrontMeasured":
            measured = payload["measurement"]
            name = measured["genome"]
            path = run / "scores" / f"{name or '_untuned'}.safetensors"
            figures = {key: value["value"] for key, value in measured["test"].items()}
            _compare(found, f"{name or 'untuned'} on test", tasks_of(path), figures)
    return found


def tasks_of(path: Path) -> dict[str, Tensors]:
    """The tensors of a file of scores, by task."""
    found: dict[str, Tensors] = {}
    for key, tensor in load_file(path).items():
        task, _, name = key.rpartition("/")
        found.setdefault(task, {})[name] = tensor
    return found


def _compare(
    found: Checked, where: str, by_task: dict[str, Tensors], told: dict[str, float | None]
) -> None:
    figures = {task: dict(figures_of(tensors)) for task, tensors in by_task.items()}
    names = {name for own in figures.values() for name in own}
    for name in sorted(names & told.keys()):
        own = [figure[name] for figure in figures.values() if name in figure]
        again = None if any(value is None for value in own) else float(np.mean(own))
        if name == "perplexity":
            scores = np.concatenate([tensors["scores"] for tensors in by_task.values()])
            again = math.exp(math.fsum(scores[:, 0]) / math.fsum(scores[:, 1]))
        found.checked += 1
        same = again is None and told[name] is None
        if again is not None and told[name] is not None:
            same = math.isclose(again, told[name], rel_tol=TOLERANCE, abs_tol=TOLERANCE)
        if not same:
            found.wrong.append(f"{where}: {name} is {told[name]}, its scores say {again}")


def figures_of(tensors: Tensors) -> Iterator[tuple[str, float | None]]:
    """One task's figures."""
    scores = tensors["scores"]
    yield from safety(tensors)
    if "labels" not in tensors:
        loss = math.fsum(scores[:, 0]) / math.fsum(scores[:, 1])
        yield "eval_loss", loss
        yield "perplexity", math.exp(loss)
        return
    labels = tensors["labels"]
    rows, classes = scores.shape
    called = [max(range(classes), key=lambda c, row=row: row[c]) for row in scores]
    right = [int(call == label) for call, label in zip(called, labels, strict=True)]
    yield "auroc", auroc(scores, labels)
    yield "task_skill", auroc(scores, labels)
    yield "accuracy", sum(right) / rows
    recalls = [
        np.mean([r for r, label in zip(right, labels, strict=True) if label == c])
        for c in range(classes)
    ]
    yield "balanced_accuracy", float(np.mean(recalls))
    yield from decisions(called, labels.tolist(), classes)
    truth = np.array([[float(label == c) for c in range(classes)] for label in labels])
    distances = [
        float(((row - wanted) ** 2).sum()) for row, wanted in zip(scores, truth, strict=True)
    ]
    yield "brier", sum(distances) / rows / (2 if classes == 2 else 1)
    yield "false_positive_cost", false_positive_cost(tensors)
    yield "recall_at_threshold", recall_at_threshold(tensors)
    if "clean" not in tensors:
        negative = [call for call, label in zip(called, labels, strict=True) if label == 0]
        yield "false_positive_rate_argmax", sum(call > 0 for call in negative) / len(negative)
    elif "clean_flagged" in tensors:
        flags = tensors["clean_flagged"].tolist()
        yield "false_positive_rate_argmax", flags.count(1.0) / len(flags)
    own = [row[label] for row, label in zip(scores, labels, strict=True)]
    yield "eval_loss", -sum(math.log(max(value, 2**-52)) for value in own) / rows
    yield "calibration", ece(scores, labels)
    if "temperature" in tensors:
        logs = np.log(np.clip(scores, 1e-12, None)) / tensors["temperature"][0]
        cooled = np.exp(logs) / np.exp(logs).sum(axis=1, keepdims=True)
        yield "calibration_scaled", ece(cooled, labels)
        yield "temperature", temperature(scores, labels, float(tensors["temperature"][0]))
        positive = scores[labels > 0, 1:].sum(axis=1)
        reached = [t for t in positive if (positive >= t).mean() >= 0.9 - 1e-12]
        yield "threshold_at_recall_90", float(max(reached))
    if "groups" in tensors:
        yield "robustness", robustness(scores, labels, tensors["groups"])


def decisions(
    called: list[int], labels: list[int], classes: int
) -> Iterator[tuple[str, float | None]]:
    """Precision, recall and F1 of the positive class, or with more classes the means of all."""
    each = []
    for wanted in [1] if classes == 2 else range(classes):
        hits = sum(c == y == wanted for c, y in zip(called, labels, strict=True))
        claimed, present = called.count(wanted), labels.count(wanted)
        both = claimed + present
        each.append(
            (hits / claimed if claimed else 0.0, hits / present, 2 * hits / both if both else 0.0)
        )
    for name, values in zip(("precision", "recall", "f1"), zip(*each, strict=True), strict=True):
        yield name, sum(values) / len(values)


def auroc(scores: NDArray[Any], labels: NDArray[Any]) -> float | None:
    """By pairs, ties counting half; one against the rest."""
    classes = scores.shape[1]
    found = []
    for wanted in [1] if classes == 2 else range(classes):
        positive, negative = scores[labels == wanted, wanted], scores[labels != wanted, wanted]
        if not len(positive) or not len(negative):
            return None
        pairs = np.sign(positive[:, None] - negative).mean()
        found.append(0.5 + 0.5 * pairs)
    return float(np.mean(found))


def false_positive_cost(tensors: Tensors) -> float | None:
    """At the threshold that came with the scores."""
    if "threshold" not in tensors:
        return None
    clean = tensors.get("clean")
    if clean is None:
        clean = tensors["scores"][tensors["labels"] == 0, 1:].sum(axis=1)
    return sum(value >= tensors["threshold"][0] for value in clean) / len(clean)


def safety(tensors: Tensors) -> Iterator[tuple[str, float | None]]:
    """Attacks that do not get below the threshold; or by the most probable class, by judgements."""
    if "withstood" not in tensors:
        return
    attacks = tensors["withstood"].tolist()
    share = 1.0 - attacks.count(0.0) / len(attacks)
    if "attacked" not in tensors:
        yield "safety", share
        return
    yield "safety_argmax", share
    if "threshold" in tensors:
        missed = sum(value < tensors["threshold"][0] for value in tensors["attacked"])
        yield "safety", 1.0 - missed / len(attacks)


def recall_at_threshold(tensors: Tensors) -> float | None:
    """Of the rows of every class but the first, the share that reaches the threshold."""
    if "threshold" not in tensors:
        return None
    wanted = tensors["scores"][tensors["labels"] > 0]
    return sum(row[1:].sum() >= tensors["threshold"][0] for row in wanted) / len(wanted)


def temperature(scores: NDArray[Any], labels: NDArray[Any], told: float) -> float:
    """Where the likelihood's slope over the inverse temperature is nought; or the one that was
    told, if it serves as well."""
    logs = np.log(np.clip(scores, 1e-12, None))
    rows = np.arange(len(labels))

    def slope(cold: float) -> float:
        weights = np.exp(cold * (logs - logs.max(axis=1, keepdims=True)))
        expected = (weights * logs).sum(axis=1) / weights.sum(axis=1)
        return float(expected.mean() - logs[rows, labels].mean())

    def loss(cold: float) -> float:
        return float((logsumexp(cold * logs, axis=1) - cold * logs[rows, labels]).mean())

    coldest, hottest = 100.0, 0.01
    best = coldest if slope(coldest) < 0 else hottest
    if slope(hottest) < 0 <= slope(coldest):
        best = brentq(slope, hottest, coldest)
    return told if loss(1.0 / told) <= loss(best) + 1e-9 else 1.0 / best


def ece(scores: NDArray[Any], labels: NDArray[Any]) -> float:
    """Bin by bin."""
    total = 0.0
    confidence, called = scores.max(axis=1), scores.argmax(axis=1)
    for number in range(15):
        low, high = number / 15, (number + 1) / 15
        inside = (confidence > low) & (confidence <= high + (1e-12 if number == 14 else 0))
        if inside.any():
            gap = (called[inside] == labels[inside]).mean() - confidence[inside].mean()
            total += inside.sum() * abs(gap)
    return total / len(labels)


def robustness(scores: NDArray[Any], labels: NDArray[Any], groups: NDArray[Any]) -> float | None:
    """The lowest AUROC of a group that has twenty rows of each class."""
    classes = range(scores.shape[1])
    found = []
    for group in set(groups.tolist()):
        inside = groups == group
        if min((labels[inside] == c).sum() for c in classes) >= 20:
            found.append(auroc(scores[inside], labels[inside]))
    known = [value for value in found if value is not None]
    return min(known) if known else None


if __name__ == "__main__":
    result = disagreements(Path(sys.argv[1]))
    print(f"{result.checked} figures computed anew, {len(result.wrong)} differ")
    print(*result.wrong, sep="\n")
    sys.exit(bool(result.wrong))
