"""Groups of adapted modules, by the names that a base or PEFT gives them."""

from __future__ import annotations

from coralx.search.module_groups import PREFIX, module_groups

BERT = [
    f"base_model.model.bert.encoder.layer.{layer}.{kind}"
    for layer in (0, 1, 10)
    for kind in ("attention.self.query", "attention.output.dense", "output.dense")
]


def test_modules_are_grouped_by_kind_and_by_layer() -> None:
    groups = module_groups([*BERT, "base_model.model.bert.pooler.dense"])
    assert list(groups) == [
        "attention.output.dense",
        "layer 0",
        "layer 1",
        "layer 10",
        "output.dense",
        "pooler.dense",
        "query",
    ]
    assert groups["query"] == {name for name in BERT if name.endswith("query")}
    assert groups["layer 1"] == {name for name in BERT if ".layer.1." in name}
    assert groups["output.dense"] == {
        name for name in BERT if name.endswith("output.dense") and "attention" not in name
    }


def test_stacks_of_layers_and_experts_are_told_apart_and_no_group_is_everything() -> None:
    stems = [
        f"base_model.model.{stack}.block.{layer}.experts.{expert}.wi"
        for stack in ("encoder", "decoder")
        for layer in range(2)
        for expert in range(2)
    ]
    assert {name: len(group) for name, group in module_groups(stems).items()} == {
        f"layer {stack}.block.{layer}": 2 for stack in ("encoder", "decoder") for layer in range(2)
    }
    assert not module_groups(["base_model.model.lm_head"])


def test_a_base_s_own_names_make_the_same_groups() -> None:
    """By them it is reckoned what finding the least group costs, before there is an adapter."""
    own = module_groups([name.removeprefix(PREFIX) for name in BERT])
    assert {name: {PREFIX + stem for stem in stems} for name, stems in own.items()} == (
        module_groups(BERT)
    )
