"""What is worth a warning in a config before it is run: code that comes with a model, and figures
that depend on the machine."""

from __future__ import annotations

from coralx.config.metric_catalogue import described
from coralx.config.schema import Config


def remote_code(config: Config) -> list[str]:
    """A warning where the base may bring code of its own; none without it."""
    if not config.model.trust_remote_code:
        return []
    return [
        f"model.trust_remote_code is on: Python files from the repository or folder of "
        f"{config.model.base} run on this machine with your rights, to read and change whatever "
        "you can. Leave it on only for a model whose code you have read"
    ]


def measurements(config: Config) -> list[str]:
    """A warning where the search is led by what another run would measure differently."""
    found = [n for n in config.named_metrics if described(n).source == "measurement"]
    if not found:
        return []
    return [
        f"{', '.join(found)}: measured on this machine, so another run of the same seed may decide "
        "otherwise; genomes are told apart only beyond the spread of their repeated measurements"
    ]
