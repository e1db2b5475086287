"""A small random Llama with tokenizer and texts: something to train where nothing else is at hand.

`python -m coralx.training.tiny_model FOLDER [--large]` writes `model` and `texts.jsonl` there.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from coralx.data.specimen import WORDS, write_texts

SPECIAL = ("<pad>", "<unk>", "<s>", "</s>")
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<s> {{ message['role'] }} : {{ message['content'] }} </s>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<s> assistant :{% endif %}"
)


def write_model(folder: Path, *, large: bool = False) -> None:
    """A Llama and its word-level tokenizer in `folder`, as save_pretrained writes them.

    Weights are random and always the same: 64 wide and 2 layers deep, or 512 and 8 if `large`.
    """
    tokenizer = _tokenizer(2048 if large else 128)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=512 if large else 64,
            intermediate_size=1408 if large else 160,
            num_hidden_layers=8 if large else 2,
            num_attention_heads=8 if large else 4,
            num_key_value_heads=4 if large else 2,
            max_position_embeddings=tokenizer.model_max_length,
            initializer_range=0.02 if large else 0.1,  # about 1 / sqrt(width): signals neither fade
            tie_word_embeddings=False,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    ).save_pretrained(folder)


def _tokenizer(longest: int) -> PreTrainedTokenizerFast:
    """Whole words and signs; a text begins with <s>, as Llama's own does."""
    vocabulary = {word: place for place, word in enumerate((*SPECIAL, *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", vocabulary["<s>"])]
    )
    pad, unknown, begin, end = SPECIAL
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=pad,
        unk_token=unknown,
        bos_token=begin,
        eos_token=end,
        model_max_length=longest,
    )
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


def main(arguments: list[str]) -> None:
    """Write model and texts into the folder that the arguments name."""
    large = "--large" in arguments
    (folder,) = (Path(argument) for argument in arguments if argument != "--large")
    folder.mkdir(parents=True, exist_ok=True)
    write_model(folder / "model", large=large)
    write_texts(folder / "texts.jsonl")


if __name__ == "__main__":
    main(sys.argv[1:])
