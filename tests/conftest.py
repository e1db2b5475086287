"""A real but tiny base model and real text, for tests that train."""

from __future__ import annotations

import copy
import csv
import gc
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import Said
from tests.support.languages import Language, byte_pieces, pieces

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# For matrices as small as those of tests, a second thread costs ten times what it saves. It must be
# said before numpy and torch are imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# What tests assert was found on CPUs. A GPU is for those who name it: CUDA_VISIBLE_DEVICES=0.
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--backend",
        default="peft",
        help="Run the backend contract over this backend; unsloth needs a process of its own.",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Unsloth must be imported before transformers and PEFT, which other fixtures import."""
    _hear_signals()
    if config.getoption("--backend") == "unsloth" and find_spec("unsloth"):
        import coralx.training.unsloth  # noqa: F401


def _hear_signals() -> None:
    """What is ignored stays so in every process that a test starts, and shells have their jobs in
    the background ignore SIGINT, nohup SIGHUP; but tests are about those signals."""
    if threading.current_thread() is not threading.main_thread():
        return
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, _stay)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


def _stay(*_: object) -> None:
    """The tests themselves outlive their terminal under nohup."""


def pytest_collection_finish() -> None:
    """What has been imported stays: garbage is looked for among what tests make, which takes a
    tenth of the time."""
    gc.collect()
    gc.freeze()


LONG = ("runs", "backends", "training", "tasks")
"""The rooms of the files that take longest."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first, so that no worker is left alone with one at the end."""
    items.sort(key=lambda item: item.path.parent.name not in LONG)


WORDS = (
    "the a is was very not of to and it this film road coffee team train phone good bad great "
    "awful lovely poor happy sad best worst love hate fine broken fast slow calm angry clean dirty"
).split()
GOOD = ("good", "great", "lovely", "happy", "best", "love", "fine", "fast", "calm", "clean")


@pytest.fixture(scope="session", autouse=True)
def without_fsync() -> Iterator[None]:
    """Nothing of the tests is to outlive a loss of power; those about fsync put in their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, in which the test works."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Said]:
    """`coralx` with the arguments given, in this process; it never shows a traceback."""
    from coralx.cli import main

    def run(*arguments: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["coralx", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        captured = capsys.readouterr()
        assert "Traceback" not in captured.out + captured.err
        code = caught.value.code
        return Said(code if isinstance(code, int) else int(code is not None), *captured)

    return run


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer BERT with its own vocabulary, as save_pretrained writes it."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny-base")
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    vocabulary = {word: place for place, word in enumerate([*special, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
    ).save_pretrained(folder)
    torch.manual_seed(0)
    BertModel(
        BertConfig(
            vocab_size=len(vocabulary),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=64,
            initializer_range=0.2,
        )
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A TSV of 240 short reviews, label then text: positive where a good word outweighs."""
    import numpy as np

    path = tmp_path_factory.mktemp("reviews") / "reviews.tsv"
    rng = np.random.default_rng(0)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t", quoting=csv.QUOTE_NONE, lineterminator="\n")
        for number in range(240):
            good = number % 2 == 0
            feeling = [word for word in WORDS[17:] if (word in GOOD) == good]
            words = [*rng.choice(WORDS[:17], rng.integers(2, 9)), *rng.choice(feeling, 2)]
            rng.shuffle(words)
            writer.writerow(["good" if good else "bad", " ".join(words)])
    return path


@pytest.fixture
def tiny_config(tiny_search: dict[str, Any]) -> dict[str, Any]:
    """A config whose whole search takes seconds, for a test to change as it likes."""
    return copy.deepcopy(tiny_search)


@pytest.fixture(scope="session")
def tiny_search(tiny_base: Path, reviews: Path) -> dict[str, Any]:
    """Four stages, real gradients, two generations of four. The first two, of 2 and 5 steps, are
    too short to be scored; the third, of 18, cuts."""
    stages: list[dict[str, Any]] = [
        {"name": "S0_sanity", "epoch_budget": 1, "data_percentage": 10, "survival_rate": 1.0},
        {"name": "S1_shakeout", "epoch_budget": 1, "data_percentage": 25, "survival_rate": 1.0},
        {"name": "S2_serious", "epoch_budget": 1, "data_percentage": 100, "survival_rate": 0.75},
        {"name": "S3_finisher", "epoch_budget": 2, "data_percentage": 100, "survival_rate": 0.5},
    ]
    for stage in stages:
        stage["stop_when"] = []
    return {
        "experiment": {"name": "tiny", "seed": 7},
        "model": {"base": str(tiny_base), "max_length": 16},
        "data": {
            "train": str(reviews),
            "header": False,
            "label": 0,
            "text": 1,
            "labels": ["bad", "good"],
            "validation_fraction": 0.2,
            "test_fraction": 0.2,
        },
        "search_space": {
            "rank": {"choices": [2, 4]},
            "learning_rate": {"low": 2e-3, "high": 3e-2, "log": True},
            "target_modules": {"choices": [["query", "value"], "all-linear"]},
        },
        "evolution": {"population_size": 4, "generations": 2, "derive": {"share": 0}},
        "hyperband_config": {"training_stages": stages},
        "training": {"batch_size": 8, "precision": "fp32"},
        "runtime": {"workers": 2, "threads_per_worker": 1},
    }


@pytest.fixture(scope="session")
def specimen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny Llama, labelled texts, the same as instructions, and as chats."""
    from coralx.data.specimen import write_texts
    from coralx.training.tiny_model import write_model

    folder = tmp_path_factory.mktemp("specimen")
    write_model(folder / "model")
    write_texts(folder / "texts.jsonl")
    rows = [json.loads(line) for line in (folder / "texts.jsonl").read_text().splitlines()]
    instructions = [
        {"prompt": f"Text : {row['text']} Label :", "completion": f" {row['label']} ."}
        for row in rows
    ]
    chats = [
        {
            "messages": [
                {"role": "user", "content": row["text"]},
                {"role": "assistant", "content": row["label"]},
            ]
        }
        for row in rows
    ]
    for name, listed in (("instructions", instructions), ("chats", chats)):
        text = "\n".join(map(json.dumps, listed))
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def causal_config(tiny_search: dict[str, Any], specimen: Path) -> Callable[[str], dict[str, Any]]:
    """A config for one of the tasks of language models, as quick as `tiny_config`."""

    def config_for(task: str) -> dict[str, Any]:
        config = copy.deepcopy(tiny_search)
        config["model"] = {"base": str(specimen / "model"), "task": task, "max_length": 48}
        config["data"] = {"validation_fraction": 0.2, "test_fraction": 0.2}
        if task == "sft":
            config["data"]["train"] = str(specimen / "instructions.jsonl")
            config["objectives"] = [{"metric": "eval_loss"}, {"metric": "trainable_parameters"}]
        else:
            config["data"] |= {
                "train": str(specimen / "texts.jsonl"),
                "labels": ["negative", "positive"],
                "prompt": "Text : {text}\nLabel :",
            }
        config["search_space"]["target_modules"] = {
            "choices": [["q_proj", "k_proj", "v_proj", "o_proj"], "all-linear"]
        }
        return config

    return config_for


@pytest.fixture(scope="session")
def languages(specimen: Path) -> dict[str, Language]:
    """`words`: whole words, <s> in front, rotary positions; `pieces`: a space before every text as
    SentencePiece has it; `bytes`: byte-level BPE, no <s>, no padding, learned positions."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    words = Language(
        AutoTokenizer.from_pretrained(specimen / "model", local_files_only=True),
        AutoModelForCausalLM.from_pretrained(specimen / "model", local_files_only=True).eval(),
    )
    return {"words": words, "pieces": pieces(), "bytes": byte_pieces()}
