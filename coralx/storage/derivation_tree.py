"""What derived genomes go back to."""

from __future__ import annotations

from coralx.storage.history import History


def makings(history: History, name: str) -> list[str]:
    """A genome and all that it is derived from, down to what was trained: each after its sources,
    and once."""
    found: list[str] = []
    waiting = [(name, False)]
    while waiting:
        genome, has_sources = waiting.pop()
        derived = history.genomes[genome].derived
        if genome in found:
            continue
        if has_sources or derived is None:
            found.append(genome)
        else:
            waiting.append((genome, True))
            waiting += [(source, False) for source in reversed(derived.sources)]
    return found


def roots(history: History, name: str) -> list[str]:
    """The genomes that were trained, of those that a genome is made from; itself, if it was."""
    return [each for each in makings(history, name) if history.genomes[each].derived is None]
