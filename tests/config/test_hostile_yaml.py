"""YAML and its files that are meant to harm: refused in words, whatever their size."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from coralx.config.load import load_config, parse_config, parse_yaml
from coralx.config.yaml_io import MOST_BYTES
from coralx.errors import ConfigError

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(8)
)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: !!python/object/apply:os.system [id]", "line 1, column 4: tags are not allowed"),
        ("!!python/name:os.system", "tags are not allowed"),
        ("data: !!set {a}", "tags are not allowed"),
        ("data: !own {a: 1}", "tags are not allowed in a config, found '!own'"),
        (BOMB, "more than 10,000 keys and values (aliases count as all that"),
        ("data: &a [*a]", "the alias *a stands inside of what"),
        ("data: &a {b: {c: *a}}", "stands inside of what"),
        ("data: " + "[" * 5_000, "nested more than 32 levels deep"),
        ("data: " + "{a: " * 5_000, "nested more than 32 levels deep"),
        ("\n".join(f"a{n}: &a{n} [{f'*a{n - 1}' * (n > 0)}]" for n in range(99)), "levels deep"),
        ("data: [" + "1, " * 20_000 + "1]", "more than 10,000 keys and values"),
        ("data:\n  train: '\x00'", "line 2, column 11: the character '\\x00' is not allowed"),
        ("data: \x1b[31m", "the character '\\x1b' is not allowed"),
        ("data: {limit: " + "9" * 5_000 + "}", "a number of 5,000 characters; at most 64"),
        ("data: {limit: 0x" + "f" * 5_000 + "}", "a number of 5,002 characters"),
        ("data: {limit: 1" + ":1" * 5_000 + "}", "a number of 10,001 characters"),
        ("data: {limit: 0x_}", "'0x_' is not a number"),
        ("data: {limit: " + "9" * 60 + "}", "less than or equal to 1000000000000"),
        ("training: {weight_decay: 1e999}", "finite number"),
        ("training: {weight_decay: .nan}", "finite number"),
        ("budget: {max_minutes: 1e300}", "less than or equal to 1000000000"),
        ("data: {train: " + "x" * 50_000 + "}", "at most 4096 characters"),
        ('data: {train: "a\\x1b[31m"}', "data.train: the character '\\x1b' is not allowed here"),
        ('data: {labels: [a, "b\\x07"]}', "the character '\\x07' is not allowed here"),
        ('search_space: {target_modules: {choices: [["q\\n"]]}}', "the character '\\n'"),
        ('data: {train: "\\ud800"}', "cannot be encoded"),
        (
            'experiment: {name: "run\\n"}',
            "experiment.name: expected a name of letters (a-z, A-Z), digits",
        ),
        (
            "experiment: {name: ..}",
            "experiment.name: expected a name of letters (a-z, A-Z), digits",
        ),
        (
            "experiment: {name: a/b}",
            "experiment.name: expected a name of letters (a-z, A-Z), digits",
        ),
        ("1: a\nnull: b", "None: keys must be text"),
        ("[a]: b", "unhashable key"),
        ("choices: 1", "choices: unknown key"),
        ('"[red]x[/]": 1', "[red]x[/]: unknown key"),
        ("{" + ", ".join(f"k{n}" for n in range(4_000)) + "}", "and 3,950 more problems"),
        ("constraints: [" + "auroc > 0, " * 4_000 + "]", "at most 100 items, not 4000"),
    ],
)
def test_yaml_that_is_meant_to_harm_is_refused_in_words(text: str, says: str) -> None:
    began = time.process_time()
    with pytest.raises(ConfigError) as caught:
        parse_config(parse_yaml(text, "test.yaml"), "test.yaml")
    assert time.process_time() - began < 2
    assert any(says in problem for problem in caught.value.problems), caught.value.problems
    assert all(len(problem) < 2_500 for problem in caught.value.problems)


@pytest.mark.parametrize(
    ("section", "key", "most"),
    [
        ("evolution", "population_size", 1_000),
        ("evolution", "generations", 10_000),
        ("training", "batch_size", 65_536),
        ("model", "max_length", 1 << 24),
        ("runtime", "workers", 1_024),
        ("runtime", "threads_per_worker", 1_024),
        ("budget", "max_steps", 10**12),
        ("data", "steps_per_epoch", 10**12),
    ],
)
def test_sizes_end_where_memory_would(section: str, key: str, most: int) -> None:
    parse_config({section: {key: most}}, "test.yaml")
    with pytest.raises(ConfigError, match=f"less than or equal to {most}") as caught:
        parse_config({section: {key: 10**18}}, "test.yaml")
    assert caught.value.problems[0].startswith(f"{section}.{key}: ")


def test_values_whose_ratios_would_overflow_are_refused() -> None:
    for low, high in ((1e-300, 1e-4), (1e-4, 1e300)):
        with pytest.raises(ConfigError, match=r"1e-12|1e\+06"):
            parse_config({"search_space": {"learning_rate": {"low": low, "high": high}}}, "x")
    row = {"name": "S", "epoch_budget": "1e999999", "data_percentage": 1, "survival_rate": 1}
    for budget in ("1e999999", "1e-999999", "sNaN", 1e300, 1e-300):
        stages = {"training_stages": [{**row, "epoch_budget": budget}]}
        with pytest.raises(ConfigError, match="epoch_budget"):
            parse_config({"hyperband_config": stages}, "x")


@pytest.mark.parametrize("endless", [False, True])
def test_a_file_of_any_size_is_refused_before_it_is_read(tmp_path: Path, endless: bool) -> None:
    path = Path("/dev/zero")
    if not endless:
        path = tmp_path / "large.yaml"
        path.write_text("data: {train: x}\n" + "# padding\n" * (10 << 20 >> 3))
    elif not path.exists():
        pytest.skip("there is no endless file here")
    began = time.process_time()
    with pytest.raises(ConfigError, match="larger than 128 KB"):
        load_config(path)
    assert time.process_time() - began < 1


def test_a_file_that_is_no_utf_8_is_refused_and_a_byte_order_mark_is_not(tmp_path: Path) -> None:
    path = tmp_path / "case.yaml"
    for encoding in ("utf-16", "latin-1"):
        path.write_bytes("experiment: {name: größe}".encode(encoding))
        with pytest.raises(ConfigError, match="not UTF-8 text: byte 0x"):
            load_config(path)
    path.write_bytes("\ufeffexperiment: {name: x}".encode())
    assert load_config(path).experiment.name == "x"
    path.write_text("# x".ljust(MOST_BYTES - 30, "x") + "\nexperiment: {name: y}")
    assert load_config(path).experiment.name == "y"
