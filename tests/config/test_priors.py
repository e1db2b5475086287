"""Priors in a config: their keys, and what a gene that is left out gets from evidence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from coralx.config import dump_yaml, load_config
from coralx.config.base_kind import BUILTIN, BaseKind, kind_of_base
from coralx.config.differences import contradictions, with_left_out_as_in
from coralx.config.evidence import SPREAD, TABLE, WIDE_SPREAD, Evidence, learning_rate_prior
from coralx.config.experiment import Model
from coralx.data import builtin
from coralx.errors import ConfigError
from coralx.search.priors import Prior
from coralx.search.space import space_of
from tests.support.factories import make_config

RATE: dict[str, Any] = {"low": 1e-5, "high": 5e-3, "log": True}


def priors(**search_space: Any) -> dict[str, Prior]:
    return dict(space_of(make_config(search_space=search_space)).priors)


@pytest.mark.parametrize(
    ("gene", "configured", "prior"),
    [
        ("learning_rate", {**RATE, "prior": "3e-4", "spread": 0.5}, (3e-4, 0.5)),
        ("learning_rate", {**RATE, "prior": 3e-4}, (3e-4, 0.8)),
        ("learning_rate", {**RATE, "prior": 3e-4, "spread": None}, (3e-4, 0.8)),
        ("dropout", {"low": 0.0, "high": 0.2, "prior": 0.0}, (0.0, 0.05)),
        ("rank", {"low": 1, "high": 65, "prior": 8}, (8, 16.0)),
        ("rank", {"choices": [2, 8, 4], "prior": 8}, (8, 1.0)),
        ("alpha_ratio", {"choices": [1, 2], "prior": 2, "spread": 0.5}, (2.0, 0.5)),
    ],
)
def test_a_gene_may_carry_a_prior(
    gene: str, configured: dict[str, Any], prior: tuple[float, float]
) -> None:
    named = {"learning_rate": RATE, gene: configured}
    assert priors(**named) == {gene: Prior(*prior, "the config")}
    assert (
        priors(**{**named, gene: {**configured, "source": "a friend"}})[gene].source == "a friend"
    )


@pytest.mark.parametrize(
    ("configured", "problem"),
    [
        ({**RATE, "prior": 3e-2}, "`prior` (0.03) lies outside the range, 1e-05 to 0.005"),
        ({**RATE, "spread": 0.5}, "`spread` says something of a prior: give `prior`"),
        ({**RATE, "source": "x"}, "`source` says something of a prior: give `prior`"),
        ({**RATE, "prior": 1e-3, "spread": 0}, "learning_rate.spread: must be greater than 0"),
        ({**RATE, "prior": "high"}, "learning_rate.prior: expected a number, found 'high'"),
        ({**RATE, "prior": 1e-3, "spread": 1, "source": "a\nb"}, "'\\n' is not allowed here"),
        (
            {"choices": [1e-3, 2e-3], "prior": 3e-3},
            "search_space.learning_rate: `prior` (0.003) is none of the choices: 0.001",
        ),
        ({"choices": [1e-3], "prior": "x"}, "learning_rate.prior: expected a number, found 'x'"),
    ],
)
def test_a_prior_that_cannot_be_is_refused(configured: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError) as refused:
        make_config(search_space={"learning_rate": configured})
    assert problem in "; ".join(refused.value.problems)
    assert "choices.prior" not in "; ".join(refused.value.problems)


# -- genes that are left out -----------------------------------------------------------------------


def test_only_a_gene_that_is_left_out_gets_a_prior_of_its_own() -> None:
    assert list(priors()) == ["learning_rate"]
    assert list(priors(rank={"choices": [8]})) == ["learning_rate"]
    assert priors(learning_rate=RATE) == {}


def test_a_resolved_config_holds_its_priors(tmp_path: Path) -> None:
    config = make_config(model={"base": "builtin:minilm"})
    path = tmp_path / "config.yaml"
    path.write_text(dump_yaml(config))
    assert load_config(path, resolved=True) == config
    # whatever the base is called by then
    moved = load_config(path, ["model.base=elsewhere/base"])
    assert moved.search_space == config.search_space


def described(folder: Path, **keys: Any) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(keys))
    return str(folder)


@pytest.mark.parametrize(
    ("keys", "known"),
    [
        ({"model_type": "roberta", "hidden_size": 768}, BaseKind("encoder", 768)),
        ({"model_type": "distilbert", "dim": 512}, BaseKind("encoder", 512)),
        ({"architectures": ["GPT2LMHeadModel"], "n_embd": 64}, BaseKind("decoder", 64)),
        (
            {"architectures": ["QwenForCausalLM"], "text_config": {"hidden_size": 2048}},
            BaseKind("decoder", 2048),
        ),
        ({"architectures": "new", "hidden_size": "many"}, BaseKind()),
    ],
)
def test_kind_and_width_of_a_local_base_are_read(
    tmp_path: Path, keys: dict[str, Any], known: BaseKind
) -> None:
    base = described(tmp_path / "base", **keys)
    assert kind_of_base(Model(base=base), [Path()]) == known
    assert kind_of_base(Model(base="base"), [Path(), tmp_path]) == known


@pytest.mark.parametrize("text", ["[]", "{", "\xff", "[" * 100_000])
def test_a_damaged_description_says_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    assert kind_of_base(Model(base=str(tmp_path)), [Path()]) == BaseKind()


def test_a_base_on_the_hub_is_known_by_the_task_alone() -> None:
    assert kind_of_base(Model(base="org/model"), [Path()]) == BaseKind()
    assert kind_of_base(Model(base="org/model", task="sft"), [Path()]) == BaseKind("decoder")
    assert kind_of_base(Model(task="label-tokens"), [Path()]) == BaseKind("decoder")


def test_the_builtins_are_described_as_they_are() -> None:
    assert BUILTIN.keys() == builtin.MODELS.keys()
    _, folder = builtin.find("minilm", builtin.MODELS, "model")
    if folder is not None:
        assert kind_of_base(Model(base=str(folder)), [Path()]) == BUILTIN["minilm"]


def test_a_configs_own_folder_is_looked_in(tmp_path: Path) -> None:
    described(tmp_path / "base", model_type="bert", hidden_size=1024)
    path = tmp_path / "search.yaml"
    path.write_text("model: {base: base}\n")
    (prior,) = space_of(load_config(path)).priors.values()
    assert (prior.center, prior.spread) == (3.1e-4, SPREAD)
    assert prior.source.startswith("encoder, 1,024 wide: the recipes tuned by LoRA's authors")


def test_between_two_rows_the_rate_lies_on_a_line_over_logarithms() -> None:
    table = (
        Evidence("decoder", 1000, 1e-3, "narrow"),
        Evidence("decoder", 4000, 2.5e-4, "wide"),
        Evidence("decoder", None, 5e-4, "all"),
        Evidence("encoder", None, 2e-3, "others"),
    )

    def said(*base: Any) -> tuple[float, float, str]:
        prior = learning_rate_prior(BaseKind(*base), table)
        return prior["prior"], prior["spread"], prior["source"]

    assert said("decoder", 1000) == (1e-3, SPREAD, "decoder, 1,000 wide: narrow")
    assert said("decoder", 2000) == (5e-4, SPREAD, "decoder, 2,000 wide: narrow and wide")
    assert said("decoder", 64) == (1e-3, SPREAD, "decoder, 64 wide: narrow")
    assert said("decoder", 9000) == (2.5e-4, SPREAD, "decoder, 9,000 wide: wide")
    assert said("decoder") == (5e-4, SPREAD, "decoder of unknown width: all")
    assert said("encoder", 384) == (2e-3, SPREAD, "encoder of unknown width: others")
    assert said() == (1e-3, WIDE_SPREAD, "a base of unknown kind: all; others")


def test_every_rate_of_the_table_lies_well_inside_the_default_range() -> None:
    gene = make_config().search_space.learning_rate
    low, high = gene.model_dump()["low"], gene.model_dump()["high"]
    assert all(2 * low < row.learning_rate < high / 2 for row in TABLE)


def test_a_run_that_began_with_another_default_goes_on_with_it() -> None:
    own = make_config(search_space={"learning_rate": {"low": 1e-4, "high": 5e-3, "log": True}})
    left_out = make_config(evolution={"generations": 9})
    assert contradictions(own, with_left_out_as_in(own, left_out)) == []
    named = make_config(search_space={"learning_rate": RATE})
    assert contradictions(own, with_left_out_as_in(own, named)) == [
        "search_space.learning_rate.low"
    ]
