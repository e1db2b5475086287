"""Whether a run's ledger speaks of the genomes and stages that its config has."""

from __future__ import annotations

from coralx.config import Config
from coralx.errors import DamagedRunError
from coralx.storage.history import History
from coralx.storage.layout import RunLayout
from coralx.text import shown


def require_consistent(history: History, config: Config, layout: RunLayout) -> None:
    """Raise DamagedRunError where events speak of genomes or stages that the run does not have."""
    stages = {stage.name for stage in config.hyperband_config.training_stages}
    genomes = history.genomes.keys()
    decided = list(history.decisions.values())
    named = {
        *(genome for genome, _ in history.results),
        *(verdict.genome for decision in decided for verdict in decision.verdicts),
        *(genome for population in history.populations.values() for genome in population),
        *(history.completed.front if history.completed else ()),
        *(donor for genome in history.genomes.values() for donor in genome.donors),
    }
    reached = {stage for _, stage in history.results} | {decision.stage for decision in decided}
    for what, unknown in (("genome", named - genomes), ("stage", reached - stages)):
        if unknown:
            raise DamagedRunError(
                f"{layout.ledger}: names the {what} {shown(min(unknown))}, which the run does not "
                "have",
                "Restore the ledger from a backup.",
            )
