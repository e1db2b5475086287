"""The baseline of a sequence classifier: its head trained on the frozen base."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from coralx.backends.protocol import Backend, create
from coralx.config import parse_config
from coralx.data.order import subset_size
from coralx.engine.jobs import HEAD_ALONE, HEAD_PASSES
from coralx.records.genomes import Genes, Genome
from coralx.records.jobs import Horizon, Job, MeasureJob
from coralx.records.run_facts import Facts
from coralx.records.subjects import HEAD

pytestmark = pytest.mark.usefixtures("here")


# -- fitted ----------------------------------------------------------------------------------------


def head_job(folder: Path) -> Job:
    horizon = Horizon(HEAD_PASSES, 0)
    return Job(HEAD_ALONE, "S3", 0, HEAD_PASSES, horizon, 1.0, str(folder / "S3"))


def prepared(config: dict[str, Any]) -> tuple[Backend, Facts]:
    backend = create("peft")
    return backend, backend.prepare(parse_config(config, "test"), "fp32", 1, lambda _: None)


def as_saved(folder: Path) -> bytes:
    return (folder / "S3" / "adapter_model.safetensors").read_bytes()


def regressed(backend: Any) -> tuple[Any, Any]:
    """The validation labels, and the probabilities that the best logistic regression gives of what
    the classifier of the backend's base reads, standardised."""
    import torch
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    part, vectors = backend._material.parts[0], []
    judged = part.splits["validation"].rows
    for data in (part.train, judged):
        batch = part.task.batch(backend._model, data, range(len(data.ids)))
        with torch.no_grad():
            vectors.append(backend._model.base_model.model.bert(**batch).pooler_output.numpy())
    fits = [
        make_pipeline(StandardScaler(), LogisticRegression(C=10.0**power, max_iter=1000))
        .fit(vectors[0], part.train.labels)
        .predict_proba(vectors[1])[:, 1]
        for power in range(-3, 4)
    ]
    return judged.labels, min(
        fits, key=lambda probabilities: log_loss(judged.labels, probabilities)
    )


def test_a_trained_head_is_logistic_regression_on_the_frozen_bases_vectors(
    tiny_config: dict[str, Any], tmp_path: Path
) -> None:
    import torch
    from safetensors.torch import load_file
    from sklearn.metrics import log_loss, roc_auc_score

    backend, facts = prepared(tiny_config)
    assert facts.trains_head
    model: Any = backend._model  # type: ignore[attr-defined]
    classifier = model.base_model.model.classifier
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    result = backend.train(head_job(tmp_path / "one"), lambda _: None)
    after = dict(model.named_parameters())
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    saved = load_file(tmp_path / "one" / "S3" / "adapter_model.safetensors")
    assert sorted(saved) == [f"base_model.model.classifier.{n}" for n in ("bias", "weight")]
    assert not torch.equal(
        saved["base_model.model.classifier.weight"], classifier.original_module.weight
    )
    assert result.metrics["trainable_parameters"] == 66
    assert result.metrics["adapter_bytes"] == 4 * 66
    assert 0 < result.steps <= HEAD_PASSES

    labels, best = regressed(backend)
    assert result.metrics["eval_loss"] <= log_loss(labels, best) + 0.01
    assert result.metrics["auroc"] == pytest.approx(roc_auc_score(labels, best), abs=0.03)

    untuned = backend.measure(MeasureJob(None, None))
    folder = tmp_path / "one" / "S3"
    measured = backend.measure(MeasureJob(HEAD_ALONE, str(folder), result.metrics))
    assert measured.genome == HEAD
    found, random = measured.test["auroc"].value, untuned.test["auroc"].value
    assert found is not None
    assert random is not None
    assert found > random + 0.15
    assert measured.test["trainable_parameters"].value == 66

    genes = Genes(rank=2, learning_rate=1e-2, batch_size=8)  # all-linear, before another head
    job = replace(head_job(tmp_path), genome=Genome("a", 0, genes), last_step=2, checkpoint=None)
    backend.train(job, lambda _: None)
    backend.train(head_job(tmp_path / "two"), lambda _: None)
    assert as_saved(tmp_path / "one") == as_saved(tmp_path / "two")


def test_a_base_whose_vectors_vary_little_has_as_good_a_head(
    tiny_config: dict[str, Any], tmp_path: Path
) -> None:
    """And it may be trained on the first rows alone, as genomes are that train on a share."""
    import torch
    from sklearn.metrics import log_loss, roc_auc_score
    from transformers import AutoTokenizer, BertConfig, BertModel

    torch.manual_seed(0)
    folder = Path(tiny_config["model"]["base"])
    BertModel(BertConfig.from_pretrained(folder, initializer_range=0.02)).save_pretrained("base")
    AutoTokenizer.from_pretrained(folder).save_pretrained("base")
    tiny_config["model"]["base"] = "base"
    backend, _ = prepared(tiny_config)
    found = backend.train(head_job(tmp_path / "all"), lambda _: None).metrics
    labels, best = regressed(backend)
    assert log_loss(labels, best) < 0.65  # where nothing is learnt it is log 2
    assert found["eval_loss"] <= log_loss(labels, best) + 0.02
    assert found["auroc"] >= roc_auc_score(labels, best) - 0.02

    material: Any = backend._material  # type: ignore[attr-defined]
    some = replace(head_job(tmp_path / "some"), data_fraction=0.1)
    fewer = backend.train(some, lambda _: None)
    rows = subset_size(len(material.train.ids), 0.1)
    material.parts = (replace(material.parts[0], train=material.train.first(rows)),)
    material.train = material.parts[0].train
    backend.train(head_job(tmp_path / "first"), lambda _: None)
    assert as_saved(tmp_path / "some") == as_saved(tmp_path / "first")
    assert as_saved(tmp_path / "some") != as_saved(tmp_path / "all")
    assert fewer.notes == ()


def test_of_mixed_tasks_each_has_its_rows_of_the_share() -> None:
    import numpy as np

    from coralx.tasks.protocol import Encoded
    from coralx.training.trained_head import _shares

    ids = tuple((row,) for row in range(8))
    train = Encoded(ids, np.arange(8), tasks=(0, 1, 1, 0, 2, 1, 0, 1))
    material: Any = SimpleNamespace(train=train, parts=(None,) * 3)
    halves = _shares(material, 0.5)
    assert [list(part.labels) for part in halves] == [[0, 3], [1, 2], []]


@pytest.mark.parametrize("has_bias", [True, False])
def test_a_layer_returns_for_standardised_vectors_what_it_did_for_the_vectors(
    has_bias: bool,
) -> None:
    import torch

    from coralx.training.detached_head import Vectors
    from coralx.training.standardised_vectors import Standardisation

    torch.manual_seed(0)
    scale = torch.tensor([1e-4, 1.0, 30.0, 0.0])  # the last one is constant
    values = torch.randn(50, 4) * scale + torch.tensor([0.2, 0.0, -5.0, 3.0])
    sets = [Vectors(None, part, torch.zeros(25)) for part in values.split(25)]  # type: ignore[arg-type]
    layer = torch.nn.Linear(4, 3, bias=has_bias).requires_grad_(False)
    before = layer(values)
    standardisation = Standardisation(layer, sets)
    standard = torch.cat([standardisation.of(one).values for one in sets])
    spread = [1.0, 1.0, 1.0, 0.0]
    assert standard.std(dim=0, correction=0).tolist() == pytest.approx(spread, abs=1e-3)
    if has_bias:
        assert standard.mean(dim=0).tolist() == pytest.approx([0.0] * 4, abs=1e-3)
    standardisation.enter()
    torch.testing.assert_close(layer(standard), before, atol=1e-3, rtol=1e-4)
    standardisation.leave()
    torch.testing.assert_close(layer(values), before, atol=1e-4, rtol=1e-5)


def bert_without_pooler(folder: Path) -> None:
    import torch
    from transformers import AutoTokenizer, BertConfig, BertModel

    torch.manual_seed(0)
    base = BertModel(BertConfig.from_pretrained(folder), add_pooling_layer=False)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    base.save_pretrained("base")
    tokenizer.save_pretrained("base")


@pytest.mark.parametrize("kind", ["pooler and classifier", "last token's score"])
def test_whatever_the_head_reads_it_is_trained_whole(
    kind: str, tiny_config: dict[str, Any], specimen: Path, tmp_path: Path
) -> None:
    """The first token's vector through two layers, which the base came without; or a decoder's
    last one."""
    if kind == "pooler and classifier":
        bert_without_pooler(Path(tiny_config["model"]["base"]))
        tiny_config["model"]["base"] = "base"
    else:
        tiny_config["model"]["base"] = str(specimen / "model")
        del tiny_config["search_space"]["target_modules"]
    backend, facts = prepared(tiny_config)
    assert facts.footprint is not None
    untuned = backend.measure(MeasureJob(None, None))
    result = backend.train(head_job(tmp_path), lambda _: None)
    assert result.metrics["trainable_parameters"] == facts.footprint.head_parameters
    random, found = untuned.validation["eval_loss"], result.metrics["eval_loss"]
    assert random is not None
    assert found is not None
    assert found < random - 0.02
