"""Whether `safety` means the same in all of a run: earlier versions judged attacks otherwise."""

from __future__ import annotations

from coralx.storage.history import History


def operating_point_warnings(history: History) -> list[str]:
    """A warning where a run of an earlier version, which flagged attacked rows by their most
    probable class, was taken up by one that flags them at the threshold."""
    told = [result.metrics for result in history.results.values() if "safety" in result.metrics]
    at_threshold = sum("safety_argmax" in metrics for metrics in told)
    if at_threshold in (0, len(told)):
        return []
    return [
        f"safety: {len(told) - at_threshold} of {len(told)} results are of an earlier version, "
        "which flagged attacked rows by their most probable class, not at the threshold of 90 % "
        "recall, and they competed with the others; a new run compares like with like"
    ]
