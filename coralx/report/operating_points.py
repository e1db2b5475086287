"""Whether `safety` means the same in all of a run: earlier versions judged attacks otherwise."""

from __future__ import annotations

from coralx.storage.history import History


def operating_point_warnings(history: History) -> list[str]:
    """A warning where a run of an earlier version, which flagged attacked rows by their most
    probable class, was taken up by one that flags them at the threshold."""
    judged = [result.metrics for result in history.results.values() if "safety" in result.metrics]
    at_threshold = sum("safety_argmax" in metrics for metrics in judged)
    if at_threshold in (0, len(judged)):
        return []
    return [
        f"safety: {len(judged) - at_threshold} of {len(judged)} results come from an earlier "
        "version, which flagged attacked rows by their most probable class instead of at the "
        "threshold of 90 % recall. They were compared with the others all the same; start a new "
        "run to judge all genomes alike"
    ]
