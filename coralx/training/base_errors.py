"""Why a base cannot be trained, each cause in words and with the way out."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from coralx.config.schema import Config
from coralx.errors import ConfigError, CoralXError
from coralx.records.genomes import Genes
from coralx.training.base_model import Base
from coralx.training.out_of_memory import reason_of, refusing
from coralx.training.task_data import Material


def require_known_tokens(config: Config, base: Base, material: Material) -> None:
    """Raise ConfigError for tokens that the base has no embedding for, and where an encoder-decoder
    cannot tell where a text ends. On a GPU, the forward pass would take the process down."""
    rows = len(base.model.get_input_embeddings().weight)
    padding, tokenizer = base.tokenizer.pad_token_id, base.tokenizer
    resize = (
        "Enlarge the base once (model.resize_token_embeddings(len(tokenizer)), then "
        "save_pretrained of both)"
    )
    if padding is not None and padding >= rows:
        raise _unfit(
            f"its tokenizer pads with {tokenizer.pad_token!r}, token {padding}, but the base has "
            f"embeddings for {rows} tokens (0 to {rows - 1})",
            f"{resize}, or give the tokenizer a padding token that the base knows, such as its end "
            "token.",
        )
    largest = material.largest_token
    if largest >= rows:
        raise _unfit(
            f"its tokenizer has {len(tokenizer)} tokens, the base embeddings for {rows}: the data "
            f"holds token {largest} ({tokenizer.convert_ids_to_tokens(largest)!r})",
            f"{resize}, or take the tokenizer that the base was trained with.",
        )
    if config.model.task == "sequence-classification" and base.model.config.is_encoder_decoder:
        _require_ends(base, material)


def _require_ends(base: Base, material: Material) -> None:
    """An encoder-decoder reads the class at a text's end token, of which all rows of a batch must
    have equally many."""
    end, token = base.model.config.eos_token_id, base.tokenizer.eos_token
    counts = [ids.count(end) for table in material.tables for ids in table.ids]
    if not min(counts, default=1):
        raise _unfit(
            f"its tokenizer does not put the end token ({token or end}) behind a text, and "
            f"a {base.model.config.model_type} reads the class there",
            "Take the tokenizer that the base was published with, or an encoder.",
        )
    if odd := sum(count > min(counts) for count in counts):
        raise ConfigError(
            "config",
            [
                f"data: the base's end token ({token}) stands in the text of {odd} of "
                f"{len(counts)} rows; a {base.model.config.model_type} reads the class there, so "
                "each row may have only the one at its end"
            ],
            f"Take {token} out of these texts.",
        )


def _unfit(problem: str, way_out: str) -> ConfigError:
    return ConfigError("config", [f"model.base: {problem}"], way_out)


FUSED_SIGNS = ("ParamWrapper does not work with", "unsupported variant combination")
"""What PEFT says of an adapter on a parameter that is no layer of its own."""


@contextmanager
def explaining(config: Config, who: str, genes: Genes | None = None) -> Iterator[None]:
    """Turn whatever libraries raise into a ConfigError that tells the cause, as far as it is known,
    and the way out. Running out of memory is left to others."""
    try:
        with refusing():
            yield
    except (CoralXError, MemoryError):
        raise
    except Exception as error:
        raise _explained(config, who, genes, error) from error


def _explained(config: Config, who: str, genes: Genes | None, error: Exception) -> ConfigError:
    said = str(error)
    if genes is not None and any(sign in said for sign in FUSED_SIGNS):
        return _fused(config, genes)
    return ConfigError(
        "config",
        [
            f"model.base: {config.model.base}: {who} cannot be trained: {type(error).__name__}: "
            f"{reason_of(error)}{_raised_in(error)}"
        ],
        "Nothing was trained. Base, tokenizer and the installed versions of torch, transformers "
        "and peft have to fit each other (`coralx doctor` lists the latter); else take another "
        "base, other search_space.target_modules or a shorter model.max_length.",
    )


def _fused(config: Config, genes: Genes) -> ConfigError:
    """What PEFT cannot do with weights that are no layer of their own."""
    unfit = (
        ("dropout", "dropout", "[0.0]", genes.dropout),
        ("use_dora", "DoRA", "[false]", genes.use_dora),
    )
    asked = [(key, name, off, value) for key, name, off, value in unfit if value]
    return ConfigError(
        "config",
        [
            f"search_space.{key}: {str(value).lower()} cannot be trained on {modules_of(genes)} of "
            f"{config.model.base}: the weights of its experts are fused in one parameter, which "
            f"PEFT adapts only without {name}"
            for key, name, _, value in asked
        ],
        f"Set {' and '.join(f'search_space.{key}: {{choices: {off}}}' for key, _, off, _ in asked)}"
        ", or leave the experts out: search_space.target_modules: {choices: [[q_proj, v_proj]]}.",
    )


def _raised_in(error: Exception) -> str:
    """The module and line that raised, as far as a reader needs its path."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return ""
    path = Path(frames[-1].filename)
    parts = path.parts
    if "site-packages" in parts:
        path = Path(*parts[parts.index("site-packages") + 1 :])
    return f" ({path}, line {frames[-1].lineno})"


def modules_of(genes: Genes) -> str:
    """The target modules in a word."""
    wanted = genes.target_modules
    return wanted if isinstance(wanted, str) else "+".join(wanted)
