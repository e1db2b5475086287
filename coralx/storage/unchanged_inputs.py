"""Whether a run that is taken up again finds the base and the data that it began with."""

from __future__ import annotations

from collections.abc import Mapping

from coralx.config import Config
from coralx.errors import UsageError
from coralx.records.run_facts import Facts
from coralx.storage.history import History
from coralx.storage.layout import RunLayout

PARTS = ("other settings in its config.json", "other weights")
"""What it means that a part of the base's fingerprint differs, in their order."""


def require_same_material(now: Facts, history: History, config: Config, layout: RunLayout) -> None:
    """Refuse to go on with other examples or another base than the run began with.

    Raises UsageError that says which of the two changed, and in what.
    """
    if history.started is None:
        raise RuntimeError("the run has not begun")
    then = history.started.facts
    base = (history.recorded_config or {}).get("model", {}).get("base", config.model.base)
    if base != config.model.base and not then.base_fingerprint:
        raise UsageError(
            f"run {layout.name!r} began with model.base {base}, whose content it did not record",
            f"Whether {config.model.base} is the same is unknown: set model.base to {base}.",
        )
    if changes := changes_between(then, now):
        raise UsageError(
            f"since run {layout.name!r} began, {', and '.join(changes)}",
            "Its results so far would not be comparable. Restore the former inputs, or start a new "
            "run.",
        )


def changes_between(then: Facts, now: Facts) -> list[str]:
    """What changed, in words, of that on which results and checkpoints rest. What one of the two
    does not know is taken to be as it was."""
    changes = []
    data = then.data_fingerprint or then.fingerprint.partition("-")[2]
    if now.rows != then.rows:
        changes.append(f"the data changed (it had {_listed(then.rows)}, now {_listed(now.rows)})")
    elif data and now.data_fingerprint != data:
        other = "as many rows, but another text, label or order, or another tokenizer"
        changes.append(f"the data changed ({other})")
    if then.classes and (other := now.changed_class(then)):
        changes.append(f"the classes changed ({other})")
    if now.base_parameters != then.base_parameters:
        size = f"it had {then.base_parameters:,} parameters, now {now.base_parameters:,}"
        changes.append(f"the base model changed ({size})")
    elif other := _other_parts(then.base_fingerprint, now.base_fingerprint):
        changes.append(f"the base model changed ({other})")
    return changes


def _other_parts(then: str, now: str) -> str:
    """Which parts of a base's fingerprint differ, in words; nothing where one is not known."""
    if not now or not then:
        return ""
    pairs = zip(PARTS, then.split("-"), now.split("-"), strict=False)
    return " and ".join(name for name, had, part in pairs if part != had)


def _listed(rows: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {kind} rows" for kind, count in sorted(rows.items()))
