"""Whether the base's tokenizer and the base fit each other, and the task; asked before training."""

from __future__ import annotations

from typing import Any

import torch

from coralx.config.schema import Config
from coralx.errors import ConfigError
from coralx.training.base_model import Base
from coralx.training.task_data import Material


def require_causal(config: Config, model: Any, vocabulary: int) -> None:
    """Raise ConfigError where the base reads what it is to predict, as an encoder does: then the
    logits of a text's beginning change with its end."""
    vocabulary = min(vocabulary, len(model.get_input_embeddings().weight))
    tokens = torch.arange(8, device=model.device) % vocabulary
    other = tokens.clone()
    other[-1] = (other[-1] + vocabulary // 2) % vocabulary
    model.eval()
    with torch.no_grad():
        logits = model(input_ids=torch.stack([tokens, other])).logits[:, :-1].float()
    # Kernels round the two rows differently; an encoder's differ by far more than that.
    if (logits[0] - logits[1]).abs().max() > 0.02 * logits.std():
        raise ConfigError(
            "config",
            [
                f"model.base: {config.model.base} is not a causal language model: its scores "
                "for a token depend on the tokens after it"
            ],
            "Use a decoder, or set model.task: sequence-classification.",
        )


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
            f"its tokenizer has {len(tokenizer)} tokens, but the base has embeddings for {rows}: "
            f"the data holds token {largest} ({tokenizer.convert_ids_to_tokens(largest)!r})",
            f"{resize}, or use the tokenizer that the base was trained with.",
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
            f"its tokenizer does not end texts with the end token ({token or end}), where "
            f"a {base.model.config.model_type} reads the class",
            "Use the tokenizer that the base was published with, or an encoder.",
        )
    if odd := sum(count > min(counts) for count in counts):
        raise ConfigError(
            "config",
            [
                f"data: {odd} of {len(counts)} rows have the base's end token ({token}) in their "
                f"text; a {base.model.config.model_type} reads the class at it, so a row may have "
                "only the one that the tokenizer appends"
            ],
            f"Remove {token} from these texts.",
        )


def _unfit(problem: str, way_out: str) -> ConfigError:
    return ConfigError("config", [f"model.base: {problem}"], way_out)
