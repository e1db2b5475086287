"""How far an earlier run speaks of a later one: by base, data and kind of task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from coralx.config.input_files import public_name
from coralx.config.metric_catalogue import CAUSAL
from coralx.config.schema import Config
from coralx.records.experience import Likeness
from coralx.records.run_facts import Facts

WIDEST = 4.0
"""By what factor the widths of two bases may differ that count as one kind."""

WHAT_ROWS_ARE = {
    *("train", "text", "label", "labels"),
    *("prompt_column", "completion_column", "messages_column"),
}
"""Keys of `data` that decide what is learnt, not how many rows are used for it."""


@dataclass(frozen=True)
class Setting:
    """What a run trains on what. Before a run, and partly in runs of earlier versions, the facts
    hold no fingerprints: then names and paths tell."""

    config: Config
    facts: Facts


def likeness_of(now: Setting, then: Setting) -> Likeness | None:
    """How like the run `now` an earlier one is; None where it is of another kind."""
    task, their_task = now.config.model.task, then.config.model.task
    if _has_same_base(now, then):
        is_same = task == their_task and _has_same_data(now, then)
        return "same base and data" if is_same else "same base"
    is_one_kind = task == their_task or {task, their_task} <= set(CAUSAL)
    return "same kind" if is_one_kind and _is_as_wide(now.facts, then.facts) else None


def _has_same_base(now: Setting, then: Setting) -> bool:
    prints = now.facts.base_fingerprint, then.facts.base_fingerprint
    if all(prints):  # settings, a dash, weights
        return prints[0].partition("-")[2] == prints[1].partition("-")[2]
    sizes = now.facts.base_parameters, then.facts.base_parameters
    if all(sizes) and sizes[0] != sizes[1]:
        return False
    names = now.config.model.base, then.config.model.base
    if names[0] is None or names[1] is None:  # simulated curves without one are all of one base
        return names == (None, None)
    return public_name(names[0]) == public_name(names[1])


def _has_same_data(now: Setting, then: Setting) -> bool:
    """The fingerprint depends on the order of rows, and so on the seed: under another seed the
    names of the files tell."""
    own = now.facts.data_fingerprint
    is_alike = bool(own) and own == then.facts.data_fingerprint
    return is_alike or _tables(now.config) == _tables(then.config)


def _tables(config: Config) -> Mapping[str, Any]:
    """By task, what its rows are and how they are read."""
    return {
        name: source.model_dump(mode="json", include=WHAT_ROWS_ARE)
        for name, source in config.data.sources.items()
    }


def _is_as_wide(facts: Facts, other: Facts) -> bool:
    """Whether the bases are about equally wide, as far as that is known."""
    if facts.footprint is None or other.footprint is None:
        return True
    narrow, wide = sorted((facts.footprint.hidden_size, other.footprint.hidden_size))
    return wide <= WIDEST * narrow
