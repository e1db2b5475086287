"""How well a classifier tells the classes apart. scikit-learn's implementations throughout.

Each function takes class probabilities, shape (rows, classes), and labels, shape (rows,). A figure
is None where it is undefined. The positive class of a binary task is the second; with more classes
the figures are macro averages.
"""

from __future__ import annotations

import numpy as np
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    brier_score_loss,
    log_loss,
    precision_recall_fscore_support,
    roc_auc_score,
)

from coralx.metrics.row_scores import Labels, Probabilities


def auroc(probabilities: Probabilities, labels: Labels) -> float | None:
    """Area under the ROC curve, 0 to 1, to be maximised; one against the rest with more than two
    classes. Undefined where a class has no row."""
    classes = probabilities.shape[1]
    if len(np.unique(labels)) < classes:
        return None
    if classes == 2:
        return float(roc_auc_score(labels, probabilities[:, 1]))
    return float(roc_auc_score(labels, probabilities, multi_class="ovr", average="macro"))


def decisions(probabilities: Probabilities, labels: Labels) -> dict[str, float | None]:
    """Figures of the most probable class, each 0 to 1 and to be maximised.

    `accuracy` is the share of rows that are right; `precision` the share of rows predicted positive
    that are (0 if none is predicted so); `recall` the share of positive rows that are predicted so;
    `f1` the harmonic mean of the two (0 with no true positive); `balanced_accuracy` the mean recall
    of the classes, undefined where one has no row.
    """
    predicted = probabilities.argmax(axis=1)
    balanced = None
    if len(np.unique(labels)) == probabilities.shape[1]:
        balanced = float(balanced_accuracy_score(labels, predicted))
    precision, recall, f1, _ = precision_recall_fscore_support(
        labels,
        predicted,
        labels=range(probabilities.shape[1]),
        average="binary" if probabilities.shape[1] == 2 else "macro",
        zero_division=0,
    )
    return {
        "accuracy": float(accuracy_score(labels, predicted)),
        "balanced_accuracy": balanced,
        "f1": float(f1),
        "precision": float(precision),
        "recall": float(recall),
    }


def brier(probabilities: Probabilities, labels: Labels) -> float:
    """Brier score, to be minimised: the mean squared distance of probability and truth, of the
    positive class with two classes (0 to 1), summed over all with more (0 to 2; Brier 1950)."""
    classes = range(probabilities.shape[1])
    if len(classes) == 2:
        return float(brier_score_loss(labels, probabilities[:, 1], pos_label=1))
    return float(brier_score_loss(labels, probabilities, labels=classes))


def eval_loss(probabilities: Probabilities, labels: Labels) -> float | None:
    """Mean negative log-likelihood in nats, 0 upward, to be minimised."""
    return float(log_loss(labels, probabilities, labels=range(probabilities.shape[1])))
