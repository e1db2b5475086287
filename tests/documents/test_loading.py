"""What others load without CoralX: the snippets of docs/python.md, run on adapters as they are
trained, say what CoralX has said of each row."""

from __future__ import annotations

import copy
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.paths import ROOT

torch = pytest.importorskip("torch")

from coralx.backends.protocol import create  # noqa: E402
from coralx.config import parse_config  # noqa: E402
from coralx.data.examples import Example  # noqa: E402
from coralx.metrics.row_scores import read_scores  # noqa: E402
from coralx.records.genomes import Genes, Genome  # noqa: E402
from coralx.records.jobs import Horizon, Job, MeasureJob  # noqa: E402
from tests.support.languages import Language  # noqa: E402

DOCUMENT = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(
    r"^```python\n(.*?)^```", DOCUMENT.split("## Use an adapter")[1], re.DOTALL | re.MULTILINE
)[:3]
LENGTH = 24
GENES = Genes(rank=4, learning_rate=2e-2, batch_size=8)


@dataclass(frozen=True)
class Trained:
    """An adapter, what CoralX said of each row of the test split, and those rows."""

    base: str
    folder: Path
    scores: Any
    rows: tuple[Example, ...]

    def placed(self, snippet: str) -> str:
        """The snippet, about this base and adapter."""
        snippet = re.sub(r'^base = ".*"$', f"base = {self.base!r}", snippet, flags=re.MULTILINE)
        snippet = re.sub(r'"runs/.*?/best/<genome>"', repr(str(self.folder)), snippet)
        return snippet.replace("max_length=48", f"max_length={LENGTH}")

    def settings(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "adapter_config.json").read_text())
        return found


def test_a_base_that_reads_padding_is_told(
    tiny_base: Path, tiny_config: dict[str, Any], tmp_path: Path
) -> None:
    """FNet mixes all tokens of a batch's rows, padding among them."""
    from transformers import FNetConfig, FNetModel

    folder = tmp_path / "fnet"
    shutil.copytree(tiny_base, folder)
    torch.manual_seed(4)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64}
    FNetModel(FNetConfig(vocab_size=64, pad_token_id=0, **sizes)).save_pretrained(folder)

    def warnings(base: Path) -> str:
        tiny_config["model"]["base"] = str(base)
        tiny_config["search_space"]["target_modules"] = {"choices": ["all-linear"]}
        config = parse_config(tiny_config, "test")
        return str(create("peft").prepare(config, None, 1, lambda _: None).warnings)

    assert "other logits in a batch with a longer one than alone" in warnings(folder)
    assert "alone" not in warnings(tiny_base)


@pytest.fixture
def trained(tmp_path: Path) -> Callable[[dict[str, Any]], Trained]:
    def train(config: dict[str, Any]) -> Trained:
        config["model"]["max_length"] = LENGTH
        config["search_space"]["target_modules"] = {"choices": ["all-linear"]}
        backend = create("peft")
        backend.prepare(parse_config(config, "test"), None, 1, lambda _: None)
        genome, folder = Genome("g", 0, GENES), tmp_path / "adapter"
        backend.train(Job(genome, "s", 0, 6, Horizon(20, 0), 1.0, str(folder)), lambda _: None)
        labels = config["data"].get("labels")
        (folder / "coralx.json").write_text(json.dumps({"labels": labels}))  # as in best/
        kept = tmp_path / "scores.safetensors"
        backend.measure(MeasureJob(genome, str(folder), scores=str(kept)))
        rows = backend._material.parts[0].splits["test"].examples  # type: ignore[attr-defined]
        return Trained(config["model"]["base"], folder, read_scores(kept)[""].scores, rows)

    return train


# -- classifiers ----------------------------------------------------------------------------------


def without_padding(folder: Path) -> None:
    """Make a base one that has no padding token, as Llama 2 and GPT-2 come."""
    rewrite(folder / "config.json", lambda values: values | {"pad_token_id": None})
    rewrite(
        folder / "tokenizer_config.json",
        lambda values: {k: v for k, v in values.items() if k != "pad_token"},
    )


def with_end(folder: Path) -> None:
    """Have the tokenizer put the end token behind every text."""
    end = {"SpecialToken": {"id": "</s>", "type_id": 0}}
    known = {"id": "</s>", "ids": [3], "tokens": ["</s>"]}

    def appended(values: dict[str, Any]) -> dict[str, Any]:
        processor = values["post_processor"]
        processor["single"].append(end)
        processor["special_tokens"]["</s>"] = known
        return values

    rewrite(folder / "tokenizer.json", appended)


def rewrite(path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    values = change(json.loads(path.read_text(encoding="utf-8")))
    path.write_text(json.dumps(values), encoding="utf-8")


def t5(folder: Path) -> None:
    """Put a T5 in the place of the model, whose tokenizer puts the end token behind every text."""
    from transformers import T5Config, T5ForConditionalGeneration

    with_end(folder)
    torch.manual_seed(3)
    T5ForConditionalGeneration(
        T5Config(
            vocab_size=64,
            d_model=32,
            d_kv=16,
            d_ff=64,
            num_layers=2,
            num_heads=2,
            pad_token_id=0,
            eos_token_id=3,
            decoder_start_token_id=0,
        )
    ).save_pretrained(folder)


def other_padding(folder: Path) -> None:
    """The tokenizer pads with the end token, the model's config names another."""
    with_end(folder)
    rewrite(folder / "tokenizer_config.json", lambda values: values | {"pad_token": "</s>"})


LLAMAS: dict[str, tuple[Callable[[Path], None], ...]] = {
    "llama": (),
    "llama without padding": (without_padding,),
    "llama without padding, with an end": (without_padding, with_end),
    "llama whose tokenizer pads otherwise": (other_padding,),
    "t5": (t5,),
}


@pytest.fixture
def base_of(
    tmp_path: Path, tiny_base: Path, specimen: Path, languages: dict[str, Language]
) -> Callable[[str], Path]:
    def make(kind: str) -> Path:
        if kind == "bert":
            return tiny_base
        folder = tmp_path / "base"
        if kind == "gpt2":
            languages["bytes"].model.save_pretrained(folder)
            languages["bytes"].tokenizer.save_pretrained(folder)
            return folder
        shutil.copytree(specimen / "model", folder)
        for change in LLAMAS[kind]:
            change(folder)
        return folder

    return make


@pytest.fixture
def classifier(
    trained: Callable[[dict[str, Any]], Trained],
    tiny_config: dict[str, Any],
    base_of: Callable[[str], Path],
    specimen: Path,
    tmp_path: Path,
) -> Callable[..., Trained]:
    """One trained on some of the specimen's texts, with something behind every third of them."""

    def train(kind: str, behind: str = "") -> Trained:
        rows = [json.loads(row) for row in (specimen / "texts.jsonl").read_text().splitlines()[:80]]
        for row in rows[::3]:
            row["text"] += behind
        (tmp_path / "texts.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        tiny_config["model"]["base"] = str(base_of(kind))
        tiny_config["data"] = {
            "train": str(tmp_path / "texts.jsonl"),
            "labels": ["negative", "positive"],
            "validation_fraction": 0.2,
            "test_fraction": 0.3,
        }
        return trained(tiny_config)

    return train


def one_by_one(found: Trained, said: dict[str, Any]) -> Any:
    """The probabilities of each row alone, by the document's snippet, which leaves its names in
    `said`."""
    loading, scoring = found.placed(SNIPPETS[0]).split("\n\nrow = ")
    exec(loading, said)
    alone = []
    for example in found.rows:
        exec("row = " + scoring.replace('"what a lovely film"', repr(example.text)), said)
        alone.append(said["probabilities"].tolist())
    return np.array(alone)


@pytest.mark.parametrize("kind", ["bert", "gpt2", *LLAMAS])
def test_a_classifier_says_the_same_without_coralx(
    kind: str, classifier: Callable[..., Trained]
) -> None:
    """Each row alone, and all in one batch."""
    found, said = classifier(kind), dict[str, Any]()
    np.testing.assert_allclose(one_by_one(found, said), found.scores, atol=1e-5)
    assert np.std(found.scores[:, 1]) > 0.01
    exec(found.placed(SNIPPETS[1]), said)
    texts = [example.text for example in found.rows]
    limits = {"truncation": True, "max_length": LENGTH, "padding": True, "return_tensors": "pt"}
    with torch.no_grad():
        together = said["model"](**said["tokenizer"](texts, **limits)).logits.softmax(-1)
    np.testing.assert_allclose(together.numpy(), found.scores, atol=1e-5)
    _names_the_bases_own_modules_alone(found)


def test_a_text_may_end_in_any_token(classifier: Callable[..., Trained]) -> None:
    """Also in the one that a base without padding would usually be padded with."""
    found = classifier("llama without padding", " </s>")
    np.testing.assert_allclose(one_by_one(found, {}), found.scores, atol=1e-5)


def _names_the_bases_own_modules_alone(found: Trained) -> None:
    from transformers import AutoModelForSequenceClassification

    settings = found.settings()
    plain = AutoModelForSequenceClassification.from_pretrained(found.base, num_labels=2)
    names = {name for name, _ in plain.named_modules()}
    for key in ("target_modules", "modules_to_save"):
        assert settings[key] == sorted(set(settings[key]))
        for module in settings[key]:
            assert any(name == module or name.endswith(f".{module}") for name in names), module
    assert settings["base_model_name_or_path"] == Path(found.base).name


# -- language models ------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [(), (without_padding, with_end)], ids=["plain", "with an end"])
def test_label_words_score_the_same_without_coralx(
    changes: tuple[Callable[[Path], None], ...],
    trained: Callable[[dict[str, Any]], Trained],
    causal_config: Callable[[str], dict[str, Any]],
    specimen: Path,
    tmp_path: Path,
) -> None:
    config = copy.deepcopy(causal_config("label-tokens"))
    shutil.copytree(specimen / "model", tmp_path / "base")
    for change in changes:
        change(tmp_path / "base")
    config["model"]["base"] = str(tmp_path / "base")
    found = trained(config)
    loading, asking = found.placed(SNIPPETS[2]).split("\n\n\nprompt = ")
    said: dict[str, Any] = {}
    exec(loading, said)
    for example, scores in zip(found.rows, found.scores, strict=True):
        prompt = f"Text : {example.text}\nLabel :"
        exec(f"prompt = {prompt!r}" + asking[asking.index('"  # data.prompt') + 1 :], said)
        assert said["probabilities"].tolist() == pytest.approx(scores.tolist(), abs=1e-5)
    assert said["answer"].shape[1] > len(said["tokens"](prompt))
    assert found.settings()["modules_to_save"] is None


def test_a_completion_is_as_likely_without_coralx(
    trained: Callable[[dict[str, Any]], Trained], causal_config: Callable[[str], dict[str, Any]]
) -> None:
    """Scores are the completion's negative log-likelihood and its tokens, the end among them."""
    found = trained(causal_config("sft"))
    loading, _ = found.placed(SNIPPETS[2]).split("\n\n\nprompt = ")
    said: dict[str, Any] = {}
    exec(loading.replace("ids[:-1] if", "ids if"), said)  # here the text ends
    for example, (loss, count) in zip(found.rows, found.scores, strict=True):
        prompt, completion = (message.content for message in example.messages)
        mean = said["score"](prompt, f"{completion} </s>").item()
        assert mean == pytest.approx(-loss / count, abs=1e-5)
