"""Warnings about a config by itself: code that comes with a model, and figures that depend on the
machine. Those about its schedule are in `schedule.plan_warnings`."""

from __future__ import annotations

from coralx.config.metric_catalogue import metric_entry
from coralx.config.schema import Config


def remote_code_warnings(config: Config) -> list[str]:
    """A warning where code that comes with the base may be run; else none."""
    if not config.model.trust_remote_code:
        return []
    return [
        f"model.trust_remote_code is on: Python files from the repository or folder of "
        f"{config.model.base} run on this machine with your rights, to read and change whatever "
        "you can. Leave it on only for a model whose code you have read"
    ]


def measurement_warnings(config: Config) -> list[str]:
    """A warning where the search goes by what another run would measure differently; else none."""
    measured = [n for n in config.named_metrics if metric_entry(n).source == "measurement"]
    if not measured:
        return []
    return [
        f"{', '.join(measured)}: measured on this machine, so another run with the same seed may "
        "decide otherwise; genomes whose measurements differ by no more than their spread count as "
        "equal"
    ]
