"""The commands as they are called: arguments, options and help.

Each is carried out by the module of its name, which is imported when it runs: help, completion and
a mistyped option must not cost what a command imports.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from coralx.records.mode import Mode

ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="The YAML config.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override one key of the config, by its dotted path. May be repeated.",
    ),
]


def run_names(incomplete: str) -> list[str]:
    """For the shell to complete: the runs under `runs/` that begin so, and `latest`."""
    from coralx.storage.layout import RUNS, is_run

    found = [path.name for path in RUNS.iterdir() if is_run(path)] if RUNS.is_dir() else []
    return sorted(name for name in ("latest", *found) if name.startswith(incomplete))


def evolve(
    config_path: Annotated[
        Path | None,
        typer.Argument(metavar="CONFIG", help="The YAML config. Not needed with --resume."),
    ] = None,
    mode: Annotated[
        Mode | None,
        typer.Option(
            help="simulation: simulated learning curves, seconds. hyperband: real training through "
            "stages, only the promising advance. full: every genome to the end, the naive "
            "baseline. Unset: what the config says.",
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Override experiment.seed.", min=0)] = None,
    overrides: Overrides = None,
    name: Annotated[
        str | None, typer.Option(help="The run's folder under runs/. Unset: experiment.name.")
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="Go on with a run: its folder, its name under runs/, or latest.",
            autocompletion=run_names,
        ),
    ] = None,
    backend: Annotated[
        str | None,
        typer.Option(
            help="What trains: unsloth (causal models, fast on GPUs), peft (everything, everywhere)"
            ", simulated, or auto, which takes what task and machine allow. [config: auto]",
        ),
    ] = None,
    baseline: Annotated[
        bool,
        typer.Option(
            "--baseline",
            help="Also train the default recipe (rank 16, alpha 16, 2e-4, all linear layers) to "
            "the end, counted apart, unless the search does.",
        ),
    ] = False,
    verify_front: Annotated[
        bool,
        typer.Option(
            "--verify-front",
            help="Once the front is measured, also train those of it that started from the "
            "weights of others from scratch, counted apart, and show both side by side.",
        ),
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the final report only.")] = False,
) -> None:
    """Evolve LoRA adapters: train, cut, breed, and hand over the Pareto front.

    Writes ledger, checkpoints, report.json, pareto.csv and best/ under runs/ in the current folder.
    Exit codes: 0 done, also where a budget ended it with a front; 2 usage or config; 3 ended, by
    whatever, before any genome finished the last stage; 4 environment; 130 interrupted (resumable).
    """
    from coralx.cli.evolve import carry_out

    carry_out(
        config_path,
        mode,
        seed,
        overrides or (),
        name,
        resume,
        backend,
        baseline=baseline,
        verify_front=verify_front,
        quiet=quiet,
    )


def stage(
    config_path: ConfigPath,
    stage: Annotated[str, typer.Argument(metavar="STAGE", help="The name of the stage to train.")],
    run: Annotated[
        str | None,
        typer.Option(
            "--run",
            metavar="RUN",
            autocompletion=run_names,
            help="The run: its folder or its name under runs/. Unset: the first stage starts a run "
            "named experiment.name, the others go on with the newest run of that name.",
        ),
    ] = None,
    mode: Annotated[
        Mode | None, typer.Option(help="As for evolve; only with the first stage.")
    ] = None,
    overrides: Overrides = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the report only.")] = False,
) -> None:
    """Train one stage of a run's current generation, then stop.

    The first stage starts a run of one generation; the last one measures baselines and front and
    writes best/. A stage that is not the next one is refused. Exit codes: as for evolve; 3 also
    where a budget ends the stage before any genome has finished the last one.
    """
    from coralx.cli.stage import carry_out

    carry_out(config_path, stage, run, mode, overrides or (), quiet=quiet)


def simulate(
    config_path: ConfigPath,
    overrides: Overrides = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Print what one generation costs, and what three strategies would find. Trains nothing."""
    from coralx.cli.simulate import carry_out

    carry_out(config_path, overrides or (), as_json=as_json)


def report(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN",
            help="A run folder, a run's name under runs/, or latest.",
            autocompletion=run_names,
        ),
    ] = "latest",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print report.json instead of tables.")
    ] = False,
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="METRIC=WEIGHT,...",
            help="Also one number for each of the front, the weighted sum of its objectives, each "
            "scaled over the front to 0 to 1; those not named count 1. Replaces the config's "
            "weights, and changes nothing in the run.",
        ),
    ] = None,
) -> None:
    """Show a run's front and what it cost. Needs the run folder only, and loads no model."""
    from coralx.cli.report import carry_out

    carry_out(run, weights, as_json=as_json)


def validate(config_path: ConfigPath, overrides: Overrides = None) -> None:
    """Check a config without training: every problem at once, with its key and what is allowed.

    Files and folders that are not there are warned about here, and refused by evolve, which also
    has a worker look at model and data before it makes a run folder.
    """
    from coralx.cli.validate import carry_out

    carry_out(config_path, overrides or ())


def doctor(
    subject: Annotated[
        str | None,
        typer.Argument(
            metavar="CONFIG|RUN",
            autocompletion=run_names,
            help="Also say what this YAML config would need; or check a run instead: its folder, "
            "its name under runs/, or latest.",
        ),
    ] = None,
    gpu_check: Annotated[
        bool,
        typer.Option(
            "--gpu-check",
            help="Train two small genomes for a few steps on the GPU, with Unsloth and with PEFT, "
            "and compare losses and speed: of CONFIG's language model and data, else of a small "
            "random model that is made for it. Takes a few minutes.",
        ),
    ] = False,
    overrides: Overrides = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Say what this machine can do: cores, memory, GPUs, packages, and which backend trains.

    With CONFIG also: how large its base is, what the smallest and the largest genome of its search
    space need in memory and whether that fits, how many adapters fit beside one base, and what a
    run needs on disk. Where nothing stands in the way, base and data are loaded as for a run, and
    one batch is tried with the smallest and the largest genome.

    Problems are listed with the way out. With RUN: whether each of its files is as it was written,
    and the way out where one is not; nothing is changed. Exit codes: 0 diagnosed, however weak the
    machine, or a sound run; 2 a config with mistakes, or one that cannot be trained; 4 a machine on
    which the trial batch fails, --gpu-check without a GPU that torch can use, or a run with damage.
    """
    from coralx.cli.doctor import carry_out

    carry_out(subject, overrides or (), gpu_check=gpu_check, as_json=as_json)


COMMANDS = (evolve, stage, simulate, report, validate, doctor)
