"""How a run ends early, interrupted or for lack of something, and how to go on then."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from coralx.errors import RUN, ConfigError, CoralXError, Interrupted, SetupError, WorkerError
from coralx.storage.layout import RunLayout, is_run, run_gone_error
from coralx.system.os_errors import as_setup_error
from coralx.system.signals import Interruption, handling_signals


@dataclass
class Ending:
    """What an early end leaves behind: nothing, or a run that can be resumed."""

    layout: RunLayout | None = None
    """The run; None before its folder is made."""
    with_config: bool = False
    """Whether a resume must name the config, too: its functions run only from a given file."""

    @property
    def way_on(self) -> str:
        """How to go on, in a sentence; nothing where there is no run folder yet."""
        if self.layout is None:
            return ""
        if not is_run(self.layout.root):
            return "Nothing was trained yet: start again."
        config = "CONFIG " if self.with_config else ""
        name = self.layout.shortest_name
        return f"Nothing is lost. To go on: coralx evolve {config}--resume {name}"

    def interrupted(self) -> Interrupted:
        if self.layout is None:
            return Interrupted("interrupted before anything was trained; no run folder was made")
        return Interrupted(f"interrupted; all completed work is in {self.layout.root}", self.way_on)

    def last_words(self) -> str:
        """What a second signal, which ends the process at once, prints."""
        error = self.interrupted()
        return f"{error.message}\n{error.hint}".strip()


@contextmanager
def interruptible(layout: RunLayout | None = None) -> Iterator[tuple[Ending, Interruption]]:
    """Turn Ctrl-C, SIGTERM and SIGHUP into an error, within seconds; have it, and what the
    environment does not allow, say how to go on."""
    ending, interruption = Ending(layout), Interruption()
    try:
        with handling_signals(interruption, ending.last_words):
            yield ending, interruption
    except KeyboardInterrupt:
        raise ending.interrupted() from None
    except (SetupError, WorkerError) as error:
        if ending.layout is not None and not ending.layout.root.is_dir():
            raise run_gone_error(ending.layout.ledger) from error
        raise _going_on(error, ending) from error
    except ConfigError as error:  # a user's function may fail as late as the last measurement
        hint = f"{error.hint} {ending.way_on}".strip()
        raise ConfigError(error.source, error.problems, hint) from error
    except CoralXError:
        raise
    except Exception as error:
        if (
            refused := as_setup_error(error)
        ) is not None:  # the system: no disk, no memory, no process
            raise _going_on(refused, ending) from error
        if ending.layout is not None:
            error.add_note(ending.way_on)
        setattr(error, RUN, ending.layout)
        raise


def _going_on(error: SetupError | WorkerError, ending: Ending) -> CoralXError:
    hint = f"{error.hint} {ending.way_on}".strip()
    with_hint = type(error)(error.message, hint, error.details)
    setattr(with_hint, RUN, ending.layout)
    return with_hint
