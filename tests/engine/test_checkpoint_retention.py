"""What a run holds on disk: bounded by population and front, however many generations it has."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from coralx.api import runs as api
from coralx.config import Config
from coralx.engine.state import RunState
from coralx.errors import Interrupted
from coralx.records.events import Event, GenerationCompleted, StageCompleted
from coralx.report.live import Silent
from coralx.storage.history import History
from coralx.storage.layout import RunLayout, find_run
from coralx.storage.ledger import Ledger
from coralx.system.files import TEMPORARY
from tests.support.factories import simulated_config

GENERATIONS = 50
SPACE = {"rank": {"low": 1, "high": 64}}
"""So many ranks that no generation runs out of new genomes."""


pytestmark = pytest.mark.usefixtures("here")


@dataclass
class Weighing(Silent):
    """A view that weighs the checkpoints after every event: how many there are, and their bytes;
    and the driver's resident memory after every generation."""

    folder: Path
    counts: list[int] = field(default_factory=list)
    weights: list[int] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)
    _weighed: dict[Path, int] = field(default_factory=dict)

    def on_event(self, event: Event) -> None:
        checkpoints = list(self.folder.glob("*/*"))
        self.counts.append(len(checkpoints))
        self.weights.append(sum(map(self._weight, checkpoints)))
        if isinstance(event, GenerationCompleted):
            self.resident.append(psutil.Process().memory_info().rss)

    def _weight(self, checkpoint: Path) -> int:
        """Bytes of a checkpoint, which is never written to again."""
        if checkpoint not in self._weighed:
            self._weighed[checkpoint] = sum(file.stat().st_size for file in checkpoint.iterdir())
        return self._weighed[checkpoint]


def largest_front(config: Config, layout: RunLayout) -> int:
    """The most members that the front had at the end of a generation."""
    history, sizes = History(), [0]
    for event in Ledger.read_events(layout.ledger):
        history.apply(event)
        if isinstance(event, GenerationCompleted):
            sizes.append(len(RunState(config, history).front()))
    return max(sizes)


FULL = {
    "hyperband_config": {"enable_hyperband": False},
    "objectives": [{"metric": name} for name in ("auroc", "trainable_parameters", "calibration")],
}
"""The front grows with the generations here: everyone finishes, and three objectives conflict."""


ASYNCHRONOUS = {"hyperband_config": {"promotion": "asynchronous"}}


@pytest.mark.parametrize(
    ("size", "times", "sections"),
    [(5, 3, {}), (3, 3, FULL), (5, 5, ASYNCHRONOUS)],
    ids=["stages", "full", "asynchronous"],
)
def test_checkpoints_are_bounded_by_population_and_front_over_fifty_generations(
    size: int, times: int, sections: dict[str, Any]
) -> None:
    """Parents, the newborn, and, while they train, the stage that each of these began from (under
    asynchronous promotion: who waits at each of three rungs); beside them the front, which is all
    that was found, and may be larger than any population."""
    evolution = {"population_size": size, "generations": GENERATIONS}
    config = simulated_config(evolution=evolution, search_space=SPACE, **sections)
    weighing = Weighing(Path("runs/long/checkpoints"))
    outcome = api.evolve(config, "long", weighing)
    assert outcome.report["efficiency"]["total_genomes"] == size * GENERATIONS
    bound = times * size + largest_front(config, outcome.layout)
    assert max(weighing.counts) <= bound
    mean = weighing.weights[-1] / weighing.counts[-1]
    assert max(weighing.weights) <= 1.1 * bound * mean
    left = {path.parent.name for path in outcome.layout.checkpoints.glob("*/*")}
    front = {member["genome"] for member in outcome.report["front"]}
    assert front <= left
    assert len(left) <= size + len(front)
    assert weighing.resident[-1] < 1.1 * weighing.resident[4]  # the driver's memory stays, too


def test_all_checkpoints_stay_where_that_is_wanted() -> None:
    runtime = {"backend": "simulated", "keep_checkpoints": "all"}
    config = simulated_config(evolution={"population_size": 4, "generations": 3}, runtime=runtime)
    layout = api.evolve(config, "all").layout
    assert len(list(layout.checkpoints.glob("*/*"))) == sum(
        isinstance(event, StageCompleted) and event.result.checkpoint is not None
        for event in Ledger.read_events(layout.ledger)
    )


@dataclass
class Interrupting(Silent):
    """A view that stops the process once it has heard so many events."""

    events: int

    def on_event(self, event: Event) -> None:
        self.events -= 1
        if self.events == 0:
            raise KeyboardInterrupt


def litter(layout: RunLayout) -> None:
    """What processes leave that are killed while they write."""
    for folder in (layout.checkpoints / "g00-00-dead" / ".S0.17.tmp", layout.best / ".a.18.tmp"):
        folder.mkdir(parents=True)
        (folder / "adapter_model.safetensors").write_text("half")
        (folder / ".manifest.json.17.tmp").write_text("{")
    layout.test_scores.mkdir(exist_ok=True)
    for path in (layout.report, layout.owner, layout.config, layout.scores(None)):
        path.with_name(f".{path.name}.19.tmp").write_text("half")


@pytest.mark.parametrize("keep", ["needed", "all"])
@pytest.mark.parametrize("is_over", [False, True], ids=["cut", "finished"])
def test_what_killed_processes_left_is_gone_after_a_resume(keep: str, is_over: bool) -> None:
    runtime = {"backend": "simulated", "keep_checkpoints": keep}
    config = simulated_config(evolution={"population_size": 4, "generations": 2}, runtime=runtime)
    if is_over:
        api.evolve(config, "x")
    else:
        with pytest.raises(Interrupted):
            api.evolve(config, "x", Interrupting(12))
    layout = find_run("x")
    litter(layout)
    assert len(list(layout.root.rglob(TEMPORARY))) == 8
    assert api.resume(layout).report["completed"]
    assert list(layout.root.rglob(TEMPORARY)) == []


def test_what_a_worker_left_that_was_killed_is_gone_once_its_run_ends() -> None:
    runtime = {"backend": "simulated", "keep_checkpoints": "all"}
    config = simulated_config(evolution={"population_size": 4, "generations": 2}, runtime=runtime)
    left = Path("runs/x/checkpoints/g00-00-dead/.S0.17.tmp")

    class Littering(Silent):
        def on_event(self, event: Event) -> None:
            if isinstance(event, StageCompleted):
                left.mkdir(parents=True, exist_ok=True)

    layout = api.evolve(config, "x", Littering()).layout
    assert list(layout.root.rglob(TEMPORARY)) == []
