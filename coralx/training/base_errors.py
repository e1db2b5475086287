"""What libraries raise where a base cannot be trained, turned into a cause and a way out."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from coralx.config.schema import Config
from coralx.errors import ConfigError, CoralXError
from coralx.records.genomes import ALL_LAYERS, Genes
from coralx.training.out_of_memory import raising_out_of_memory, reason_of

FUSED_SIGNS = ("ParamWrapper does not work with", "unsupported variant combination")
"""What PEFT says of an adapter on a parameter that is no layer of its own."""


@contextmanager
def explaining(config: Config, who: str, genes: Genes | None = None) -> Iterator[None]:
    """Turn whatever libraries raise in the block into a ConfigError with the cause, as far as it is
    known, and the way out. `who` is what cannot be trained then, as the subject of a sentence.

    Raises OutOfMemory where memory runs out: the config may be right all the same.
    """
    try:
        with raising_out_of_memory():
            yield
    except (CoralXError, MemoryError):
        raise
    except Exception as error:
        raise _explained(config, who, genes, error) from error


def _explained(config: Config, who: str, genes: Genes | None, error: Exception) -> ConfigError:
    text = str(error)
    # PEFT's own message names neither the genes nor a way out.
    if genes is not None and any(sign in text for sign in FUSED_SIGNS):
        return _fused(config, genes)
    return ConfigError(
        "config",
        [
            f"model.base: {config.model.base}: {who} cannot be trained: {type(error).__name__}: "
            f"{reason_of(error)}{_raised_in(error)}"
        ],
        "Nothing was trained. Check that base, tokenizer and the installed versions of torch, "
        "transformers and peft fit each other (`coralx doctor` lists the versions), or try another "
        "base, other search_space.target_modules or a shorter model.max_length.",
    )


def _fused(config: Config, genes: Genes) -> ConfigError:
    """PEFT cannot adapt weights that are no layer of their own with dropout or DoRA: which of them
    the genome has, and how to leave them out."""
    unsupported = (
        ("dropout", "dropout", "[0.0]", genes.dropout),
        ("use_dora", "DoRA", "[false]", genes.use_dora),
    )
    used = [(key, name, off, value) for key, name, off, value in unsupported if value]
    switched_off = [f"search_space.{key}: {{choices: {off}}}" for key, _, off, _ in used]
    return ConfigError(
        "config",
        [
            f"search_space.{key}: {str(value).lower()} cannot be trained on {modules_of(genes)} of "
            f"{config.model.base}: the weights of its experts are fused in one parameter, which "
            f"PEFT adapts only without {name}"
            for key, name, _, value in used
        ],
        f"Set {' and '.join(switched_off)}, or leave the experts out: "
        "search_space.target_modules: {choices: [[q_proj, v_proj]]}.",
    )


def _raised_in(error: Exception) -> str:
    """The module and line that raised; of an installed package without the path to it."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return ""
    path = Path(frames[-1].filename)
    parts = path.parts
    if "site-packages" in parts:
        path = Path(*parts[parts.index("site-packages") + 1 :])
    return f" ({path}, line {frames[-1].lineno})"


def modules_of(genes: Genes) -> str:
    """The target modules in a word, with the layers unless they are all."""
    targets = genes.target_modules
    named = targets if isinstance(targets, str) else "+".join(targets)
    return named if genes.layers == ALL_LAYERS else f"{named} of layers {genes.layers}"
