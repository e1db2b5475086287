"""Which layers a genome adapts, by the names of a base's linear modules."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coralx.config.schema import Config
from coralx.records.genomes import GENE_NAMES, Genes, Layers
from coralx.records.serialization import from_json, to_json
from coralx.rng import generator
from coralx.search.adapted_layers import adapted_count, adapted_modules, lowest_layer, stack_of
from coralx.search.operators import cross_values, mutate
from coralx.search.space import space_of
from tests.support.factories import make_config, make_space

BERT = (
    "bert.embeddings.projection",
    *(f"bert.encoder.layer.{n}.{part}" for n in range(6) for part in ("query", "output.dense")),
    "bert.pooler.dense",
)


@pytest.mark.parametrize(
    ("layers", "count", "adapted"),
    [
        ("all", 6, 6),
        ("top-half", 6, 3),
        ("top-half", 7, 4),  # rounded up
        ("top-half", 1, 1),
        ("top-quarter", 30, 8),
        ("top-quarter", 2, 1),
        (2, 6, 2),
        (6, 6, 6),
    ],
)
def test_shares_are_rounded_up_and_numbers_count_from_the_top(
    layers: Layers, count: int, adapted: int
) -> None:
    assert adapted_count(layers, count) == adapted
    assert lowest_layer(layers, count) == count - adapted


def test_what_lies_in_the_top_layers_is_adapted() -> None:
    assert adapted_modules(BERT, Genes(), 6) == list(BERT)
    top = [f"bert.encoder.layer.{n}.{part}" for n in (4, 5) for part in ("query", "output.dense")]
    assert adapted_modules(BERT, Genes(layers=2), 6) == top
    dense = Genes(layers=1, target_modules=("dense",))
    assert adapted_modules(BERT, dense, 6) == ["bert.encoder.layer.5.output.dense"]
    everywhere = adapted_modules(BERT, Genes(layers=6), 6)
    assert everywhere == list(BERT[1:-1]), "neither the embeddings' nor the pooler's"


def test_layers_are_those_of_the_one_list_of_so_many() -> None:
    assert stack_of(BERT, 6) == "bert.encoder.layer"
    assert stack_of(BERT, 12) is None
    experts = [f"model.layers.{n}.experts.{e}.up" for n in range(3) for e in range(8)]
    assert stack_of(experts, 3) == "model.layers"
    shared = ["albert.groups.0.layers.0.query"]
    assert stack_of(shared, 12) is None
    towers = [f"{tower}.layers.{n}.q" for tower in ("text", "image") for n in range(4)]
    assert stack_of(towers, 4) is None
    assert stack_of(["dense"], 0) is None


def test_the_gene_is_off_unless_it_is_searched() -> None:
    assert "layers" not in space_of(make_config()).genes
    assert Genes().layers == "all"
    old = {name: value for name, value in to_json(Genes()).items() if name != "layers"}
    assert from_json(Genes, old) == Genes()
    assert GENE_NAMES[-1] == "layers", "draws of other genes stay as they were"


def test_it_is_searched_as_choices_without_an_order() -> None:
    space = make_space(layers={"choices": ["all", "top-half", 2]})
    sample = space.sample(12, generator(1, "test"))
    assert {genes.layers for genes in sample} == {"all", "top-half", 2}
    rng = generator(2, "test")
    mutants = {mutate(space, Genes(layers=2), 1.0, rng).layers for _ in range(20)}
    assert mutants == {"all", "top-half"}
    first, second = (space.values(Genes(layers=layers)) for layers in ("all", 2))
    crossed = {cross_values(space.genes, first, second, rng)["layers"] for _ in range(20)}
    assert crossed == {"all", 2}
    for layers in ("all", 2):
        assert from_json(Genes, to_json(replace(Genes(), layers=layers))).layers == layers


def _config(**space: object) -> Config:
    return make_config(search_space=space)


@pytest.mark.parametrize("value", ["top", "top-third", 0, -1, True, 1.5, None, [], "half"])
def test_what_is_no_choice_of_layers_is_refused_in_one_line(value: object) -> None:
    with pytest.raises(Exception, match=r"search_space\.layers\.choices\.0") as caught:
        _config(layers={"choices": [value]})
    (line,) = [line for line in str(caught.value).splitlines() if "layers.choices" in line]
    assert "expected all, top-half, top-quarter, or how many layers from the top" in line
