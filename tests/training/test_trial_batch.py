"""What is found out of a base before a run begins: whether its genomes can be trained at all."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
import transformers
from transformers import AutoTokenizer, BertConfig, PreTrainedTokenizerFast

from coralx.backends.protocol import create
from coralx.config import parse_config
from coralx.errors import ConfigError, SetupError
from coralx.records.genomes import Genes
from coralx.records.run_facts import Facts
from coralx.tasks.protocol import Encoded
from coralx.tasks.sequence_classification import SequenceClassification
from coralx.training import adapter_backend as adapting
from coralx.training import adapters
from coralx.training.trial_batch import Trial
from tests.support.tiny_shapes import SMALL


@pytest.fixture
def backend() -> Any:
    return create("peft")


def prepare(backend: Any, config: dict[str, Any], said: list[str] | None = None) -> Facts:
    """As the first worker of a new run does."""
    threads = 1
    hear: Callable[[str], None] = (said if said is not None else []).append
    facts: Facts = backend.prepare(parse_config(config, "config"), None, threads, hear)
    return facts


def refused(backend: Any, config: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        prepare(backend, config)
    assert caught.value.exit_code == 2
    return f"{caught.value.message}\n{caught.value.hint}"


def save(folder: Path, model: Any, tokenizer: Any) -> str:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def bert(tokenizer: Any, *, rows: int | None = None, labels: int | None = None) -> Any:
    torch.manual_seed(0)
    shape = {"vocab_size": rows or len(tokenizer), "max_position_embeddings": 64, **SMALL}
    if labels is None:
        return transformers.BertModel(BertConfig(**shape))
    return transformers.BertForSequenceClassification(BertConfig(num_labels=labels, **shape))


def numpys_draws() -> Any:
    state: Any = np.random.get_state()
    return state[1].tolist()


@pytest.fixture
def words(tiny_base: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_base, local_files_only=True)


def with_ends(words: Any, template: str = "$A") -> Any:
    """The same words, with the tokens that other families of models use."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    special = ["<s>", "<pad>", "</s>", "<unk>"]
    ordered = sorted(words.get_vocab(), key=words.get_vocab().get)[4:]
    vocabulary = {word: place for place, word in enumerate([*special, *ordered])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
    )


# -- a base that trains ----------------------------------------------------------------------------


def test_a_trial_reads_the_ends_of_every_split_and_leaves_no_trace(
    backend: Any,
    tiny_config: dict[str, Any],
    reviews: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = reviews.read_text().splitlines()
    longest = "good\t" + "the film is good and " * 4  # 22 tokens, in the test split alone
    (tmp_path / "test.tsv").write_text("\n".join([*rows[:20], longest]))
    tiny_config["data"] |= {"test": str(tmp_path / "test.tsv"), "attacks": ["swap"]}
    tiny_config["model"]["max_length"] = 64
    tiny_config["search_space"] |= {
        "dropout": {"low": 0.0, "high": 0.3},
        "use_dora": {"choices": [True, False]},
        "use_rslora": {"choices": [True, False]},
    }
    del tiny_config["data"]["test_fraction"]
    read, tried, said = list[int](), list[Genes](), list[str]()
    score, adapt = SequenceClassification.scores, adapters.add

    def scores(self: Any, model: Any, data: Encoded, rows: Sequence[int]) -> Any:
        read.extend(len(data.ids[row]) for row in rows)
        return score(self, model, data, rows)

    def add(model: Any, genome: Any, shape: Any, base: Any) -> None:
        tried.append(genome.genes)
        adapt(model, genome, shape, base)

    states = []

    def stated(config: Any, *arguments: Any) -> Any:
        states.append((torch.get_rng_state(), numpys_draws(), random.getstate()))
        return original(config, *arguments)

    original = Trial.run
    monkeypatch.setattr(SequenceClassification, "scores", scores)
    monkeypatch.setattr(adapters, "add", add)
    monkeypatch.setattr(Trial, "run", stated)
    facts = prepare(backend, tiny_config, said)
    assert "trying one batch with the smallest and the largest genome" in said
    assert max(read) == 22
    assert not any("largest genome" in warning for warning in facts.warnings)
    assert tried == [
        Genes(rank=2, target_modules=("query", "value"), batch_size=8),
        Genes(rank=4, dropout=0.3, use_dora=True, use_rslora=True, batch_size=8),
    ]
    (before,) = states
    assert torch.equal(torch.get_rng_state(), before[0])
    assert numpys_draws() == before[1]
    assert random.getstate() == before[2]
    assert list(backend._model.peft_config) == ["default"]
    assert not any("genome-trial" in name for name, _ in backend._model.named_parameters())
    assert all(p.grad is None for p in backend._model.parameters())


def test_a_worker_that_is_told_the_precision_tries_nothing(
    backend: Any, tiny_config: dict[str, Any]
) -> None:
    said = list[str]()
    backend.prepare(parse_config(tiny_config, "config"), "fp32", 1, said.append)
    assert not any("trying" in line for line in said)


def test_a_head_for_other_classes_is_trained_anew(
    backend: Any, tiny_config: dict[str, Any], words: Any, tmp_path: Path
) -> None:
    tiny_config["model"]["base"] = save(tmp_path / "b", bert(words, labels=3), words)
    facts = prepare(backend, tiny_config)
    (warning,) = facts.warnings
    assert "a head for 3 classes, the data has 2" in warning
    assert backend._base.head == ("classifier",)
    first = backend._base.model.classifier.original_module.weight.clone()
    again: Any = create("peft")
    prepare(again, tiny_config)
    assert torch.equal(again._base.model.classifier.original_module.weight, first)
    tiny_config["experiment"]["seed"] += 1
    prepare(again, tiny_config)
    assert not torch.equal(again._base.model.classifier.original_module.weight, first)


# -- bases that do not -----------------------------------------------------------------------------


def test_a_padding_token_without_an_embedding_is_refused(
    backend: Any, tiny_config: dict[str, Any], words: Any, tmp_path: Path
) -> None:
    model = bert(words)
    words.add_special_tokens({"pad_token": "[NEW]"})
    tiny_config["model"]["base"] = save(tmp_path / "b", model, words)
    said = refused(backend, tiny_config)
    rows = len(words) - 1
    assert f"pads with '[NEW]', token {rows}, but the base has embeddings for {rows} " in said
    assert "resize_token_embeddings" in said


def test_a_token_without_an_embedding_is_refused(
    backend: Any, tiny_config: dict[str, Any], words: Any, tmp_path: Path
) -> None:
    tiny_config["model"]["base"] = save(tmp_path / "b", bert(words, rows=len(words) - 3), words)
    said = refused(backend, tiny_config)
    assert f"has {len(words)} tokens, but the base has embeddings for {len(words) - 3}" in said
    assert f"token {len(words) - 1} ('dirty')" in said


def test_weights_that_are_not_finite_are_named(
    backend: Any, tiny_config: dict[str, Any], words: Any, tmp_path: Path
) -> None:
    model = bert(words)
    torch.nn.init.constant_(model.encoder.layer[0].output.dense.weight, float("nan"))
    tiny_config["model"]["base"] = save(tmp_path / "b", model, words)
    said = refused(backend, tiny_config)
    assert "the training loss (nan) is not a finite number" in said
    assert "weights in bert.encoder.layer.0.output.dense.weight are not finite" in said


@pytest.mark.parametrize("task", ["sequence-classification", "label-tokens"])
def test_a_decoder_without_padding_and_end_tokens_can_be_trained(
    backend: Any, tiny_config: dict[str, Any], words: Any, tmp_path: Path, task: str
) -> None:
    tokenizer = with_ends(words)
    tokenizer.pad_token = tokenizer.eos_token = None
    config = transformers.GPT2Config(vocab_size=len(tokenizer), n_embd=16, n_layer=1, n_head=2)
    tiny_config["model"]["base"] = save(
        tmp_path / "b", transformers.GPT2LMHeadModel(config), tokenizer
    )
    tiny_config["search_space"]["target_modules"] = {"choices": ["all-linear"]}
    tiny_config["model"]["task"] = task
    facts = backend.prepare(parse_config(tiny_config, "test"), None, 1, lambda _: None)
    assert facts.rows["train"] > 0


@pytest.mark.parametrize(
    ("template", "text", "expected"),
    [
        ("$A", "the film is good", "does not end texts with the end token (</s>)"),
        (
            "$A </s>",
            "the film </s> is good",
            "1 of 240 rows have the base's end token (</s>)",
        ),
        ("$A </s>", "the film is good", None),
    ],
)
def test_an_encoder_decoder_needs_one_end_token_a_row(
    backend: Any,
    tiny_config: dict[str, Any],
    words: Any,
    reviews: Path,
    tmp_path: Path,
    template: str,
    text: str,
    expected: str | None,
) -> None:
    rows = [*reviews.read_text().splitlines()[:-1], f"bad\t{text}"]
    (tmp_path / "rows.tsv").write_text("\n".join(rows))
    tiny_config["data"]["train"] = str(tmp_path / "rows.tsv")
    tokenizer = with_ends(words, template)
    config = transformers.T5Config(
        vocab_size=len(tokenizer),
        d_model=16,
        d_kv=8,
        d_ff=32,
        num_layers=1,
        num_heads=2,
        decoder_start_token_id=1,
        pad_token_id=1,
        eos_token_id=2,
    )
    base = save(tmp_path / "b", transformers.T5Model(config), tokenizer)
    tiny_config["model"]["base"] = base
    tiny_config["search_space"]["target_modules"] = {"choices": [["q", "v"], "all-linear"]}
    if expected is None:
        assert prepare(backend, tiny_config).rows["train"] == 144
    else:
        assert expected in refused(backend, tiny_config)


def test_fused_experts_train_without_dropout_and_dora(
    backend: Any, causal_config: Any, specimen: Path, tmp_path: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(specimen / "model", local_files_only=True)
    shape = {
        "vocab_size": len(tokenizer),
        "num_key_value_heads": 2,
        "num_local_experts": 2,
        **SMALL,
    }
    torch.manual_seed(0)
    model = transformers.MixtralForCausalLM(transformers.MixtralConfig(**shape))
    config = causal_config("label-tokens")
    config["model"]["base"] = save(tmp_path / "b", model, tokenizer)
    config["search_space"]["use_dora"] = {"choices": [False, True]}
    said = refused(backend, config)
    assert "search_space.dropout: 0.2 cannot be trained on all-linear" in said
    assert "search_space.use_dora: true cannot be trained on all-linear" in said
    assert "Set search_space.dropout: {choices: [0.0]}" in said
    config["search_space"] |= {"use_dora": None, "dropout": {"choices": [0.0]}}
    prepare(backend, config)


def test_what_nobody_foresaw_is_told_with_the_genome_and_the_place(
    backend: Any, tiny_config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def loss(*_: Any) -> Any:
        raise RuntimeError("an odd shape\nand many details")

    monkeypatch.setattr(SequenceClassification, "loss", loss)
    said = refused(backend, tiny_config)
    assert "the smallest genome of the search space (rank 2 on query+value)" in said
    assert "RuntimeError: an odd shape (" in said
    assert "test_trial_batch.py, line" in said
    assert "many details" not in said


# -- memory ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows_that_fit", "largest_rank", "expected"),
    [(1, 4, "trained"), (0, 4, "refused"), (1, 2, "warned")],
)
def test_memory_refuses_only_what_not_even_single_rows_fit_for(
    backend: Any,
    tiny_config: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    rows_that_fit: int,
    largest_rank: int,
    expected: str,
) -> None:
    compute = SequenceClassification.loss

    def loss(self: Any, model: Any, data: Encoded, rows: Sequence[int]) -> Any:
        rank = next(c.r for name, c in model.peft_config.items() if name != "default")
        if len(rows) > rows_that_fit or rank > largest_rank:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return compute(self, model, data, rows)

    monkeypatch.setattr(SequenceClassification, "loss", loss)
    if expected == "refused":
        with pytest.raises(SetupError, match=r"smallest genome .*: out of memory"):
            prepare(backend, tiny_config)
        return
    warnings = prepare(backend, tiny_config).warnings
    assert bool(warnings) == (expected == "warned")
    assert all("the largest genome of the search space fails here" in w for w in warnings)


def test_a_precision_that_cannot_be_measured_refuses_nothing(
    backend: Any, tiny_config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def faster(*_: Any) -> Any:
        raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB\nand more")

    monkeypatch.setattr(adapting, "faster_precision", faster)
    tiny_config["training"]["precision"] = "auto"
    facts = prepare(backend, tiny_config)
    assert facts.precision == "fp32"
    assert facts.precision_reason == (
        "bf16 could not be measured: CUDA out of memory. Tried to allocate 2 GiB"
    )
