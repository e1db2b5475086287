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
        help="Override one key of the config, by its dotted path. Can be repeated.",
    ),
]

SettingsFile = Annotated[
    Path | None,
    typer.Option(
        "--settings",
        metavar="FILE",
        help="A YAML file whose keys take the place of the config's, such as doctor --gpu-check "
        "--write makes. --set has the last word.",
    ),
]


def run_names(incomplete: str) -> list[str]:
    """For shell completion: the runs under `runs/` that begin with `incomplete`, and `latest`."""
    from coralx.storage.layout import RUNS, is_run

    runs = [path.name for path in RUNS.iterdir() if is_run(path)] if RUNS.is_dir() else []
    return sorted(name for name in ("latest", *runs) if name.startswith(incomplete))


def evolve(
    config_path: Annotated[
        Path | None,
        typer.Argument(metavar="CONFIG", help="The YAML config. Not needed with --resume."),
    ] = None,
    mode: Annotated[
        Mode | None,
        typer.Option(
            help="simulation: simulated learning curves, takes seconds. hyperband: real training "
            "through stages, in which only the promising advance. full: every genome trained to "
            "the end, the naive baseline. Default: the mode in the config.",
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Override experiment.seed.", min=0)] = None,
    overrides: Overrides = None,
    settings: SettingsFile = None,
    name: Annotated[
        str | None, typer.Option(help="The run's folder under runs/. Default: experiment.name.")
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="Resume a run: its folder, its name under runs/, or latest.",
            autocompletion=run_names,
        ),
    ] = None,
    backend: Annotated[
        str | None,
        typer.Option(
            help="What trains: unsloth (causal models, fast on GPUs), peft (every task, every "
            "machine), simulated, or auto, which chooses by task and machine. Default: "
            "runtime.backend in the config.",
        ),
    ] = None,
    learn_from: Annotated[
        list[str] | None,
        typer.Option(
            "--learn-from",
            metavar="RUN [RUN ...]",
            help="Learn from earlier runs, finished or not, by folder or name under runs/: take "
            "over what worked there and avoid what exploded, weighed by how like they are. "
            "Adapters are never taken over. Can be repeated.",
            autocompletion=run_names,
        ),
    ] = None,
    baseline: Annotated[
        bool,
        typer.Option(
            "--baseline",
            help="Also train the default recipe (rank 16, alpha 16, 2e-4, all linear layers) and "
            "the centre of the priors to the end, unless the search does. Their cost is counted "
            "separately.",
        ),
    ] = False,
    verify_front: Annotated[
        bool,
        typer.Option(
            "--verify-front",
            help="Once the front is measured, train its members that inherited weights again from "
            "scratch (derive again those derived of such), and show both side by side. The cost is "
            "counted separately.",
        ),
    ] = False,
    profile: Annotated[
        bool,
        typer.Option(
            "--profile",
            help="Also show where the time went, by worker and stage, and how near training came "
            "to this machine's matrix-product rate, which is measured for two seconds at the end.",
        ),
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the final report only.")] = False,
) -> None:
    """Search LoRA adapters: train, cut, breed, and write the Pareto front.

    Writes ledger, checkpoints, report.json, pareto.csv and best/ to runs/NAME/.

    Exit codes:
      0  done, or ended by a budget with a front
      2  usage or config error
      3  ended before any genome finished the last stage
      4  environment error: disk, lock, damaged run, missing package
    130  interrupted; can be resumed
    """
    from coralx.cli.common import with_settings
    from coralx.cli.evolve import carry_out

    carry_out(
        config_path,
        mode,
        seed,
        with_settings(settings, overrides),
        name,
        resume,
        backend,
        learn_from or (),
        baseline=baseline,
        verify_front=verify_front,
        profile=profile,
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
            help="The run: its folder or its name under runs/. Default: the first stage starts a "
            "run named experiment.name, the others continue the newest run of that name.",
        ),
    ] = None,
    mode: Annotated[
        Mode | None, typer.Option(help="As for evolve; only with the first stage.")
    ] = None,
    overrides: Overrides = None,
    settings: SettingsFile = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the report only.")] = False,
) -> None:
    """Train one stage of a run's current generation, then stop.

    The first stage starts a run of one generation; the last stage also measures baselines and front
    and writes best/. Only the run's next stage is accepted.

    Exit codes: as for evolve; 3 also if a budget ends the stage before any genome has finished the
    last stage.
    """
    from coralx.cli.common import with_settings
    from coralx.cli.stage import carry_out

    carry_out(config_path, stage, run, mode, with_settings(settings, overrides), quiet=quiet)


def simulate(
    config_path: ConfigPath,
    overrides: Overrides = None,
    settings: SettingsFile = None,
    tune_schedule: Annotated[
        list[str] | None,
        typer.Option(
            "--tune-schedule",
            metavar="[CURVES.csv|RUN ...]",
            help="Propose stages instead: the cheapest that would have kept the best of the "
            "learning curves in CSV files and finished runs. Several after one flag; without any, "
            "the runs of evolution.learn_from.",
            autocompletion=run_names,
        ),
    ] = None,
    metrics: Annotated[
        list[str] | None,
        typer.Option(
            "--metric",
            metavar="NAME",
            help="With --tune-schedule: the metric whose best is to be kept, by default the first "
            "objective that training changes. May be repeated; NAME:maximize or NAME:minimize for "
            "one that CoralX does not know.",
        ),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            min=1e-9,
            metavar="NUMBER",
            help="With --tune-schedule: how far behind the best the survivors may be on average, "
            "in the metric's unit, of perplexity as a share of it. By default 0.003 for figures "
            "from 0 to 1, 0.01 for losses and perplexity, 0.3 for BLEU.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Show what one generation costs, and what three strategies would find. Trains nothing.

    With --tune-schedule: propose stages for the config, by recorded learning curves.
    """
    from coralx.cli.common import with_settings
    from coralx.cli.simulate import carry_out

    carry_out(
        config_path,
        with_settings(settings, overrides),
        tuned_on=tune_schedule,
        metrics=metrics or (),
        tolerance=tolerance,
        as_json=as_json,
    )


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
            help="Also show one score for each genome of the front: the weighted sum of its "
            "objectives, each scaled from 0 to 1 over the front. Objectives not named have weight "
            "1. Replaces the config's weights; changes nothing in the run.",
        ),
    ] = None,
    profile: Annotated[
        bool,
        typer.Option("--profile", help="Show where the time went instead, by worker and stage."),
    ] = False,
) -> None:
    """Show a run's front and what it cost. Needs only the run folder; loads no model."""
    from coralx.cli.report import carry_out

    carry_out(run, weights, as_json=as_json, profile=profile)


def validate(
    config_path: ConfigPath, overrides: Overrides = None, settings: SettingsFile = None
) -> None:
    """Check a config without training: lists every problem, with its key and what is allowed.

    Missing files and folders are warnings here and errors in evolve, which also loads model and
    data before it creates a run folder.
    """
    from coralx.cli.common import with_settings
    from coralx.cli.validate import carry_out

    carry_out(config_path, with_settings(settings, overrides))


def doctor(
    subject: Annotated[
        str | None,
        typer.Argument(
            metavar="CONFIG|RUN",
            autocompletion=run_names,
            help="A YAML config: also show what it needs. Or a run to check instead: its folder, "
            "its name under runs/, or latest.",
        ),
    ] = None,
    gpu_check: Annotated[
        bool,
        typer.Option(
            "--gpu-check",
            help="Check on the GPU what only a GPU can tell, in under ten minutes: Unsloth against "
            "PEFT, answers, resuming, memory, and by which settings it trains fastest. With CONFIG "
            "on its base, else on a small random one. The result can be pasted into an issue.",
        ),
    ] = False,
    write: Annotated[
        Path | None,
        typer.Option(
            "--write",
            metavar="FILE",
            help="With --gpu-check: write the settings that it recommends to a new file, for "
            "evolve --settings FILE.",
        ),
    ] = None,
    overrides: Overrides = None,
    settings: SettingsFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Show what this machine can do: cores, memory, GPUs, packages, and which backend trains.

    With CONFIG also: how large its base is, what the smallest and the largest genome of its search
    space need in memory and whether that fits, how many adapters fit beside one base, and what a
    run needs on disk. Then loads base and data as for a run, and trains one batch with the smallest
    and the largest genome, unless a problem rules that out.

    With RUN: checks that each of its files is as it was written; changes nothing. Problems are
    listed with what to do.

    Exit codes:
      0  machine shown, or run undamaged
      2  config error, or a config that cannot be trained
      4  trial batch failed, no GPU for --gpu-check or a part of it failed, or run damaged
    """
    from coralx.cli.common import with_settings
    from coralx.cli.doctor import carry_out

    carry_out(
        subject,
        with_settings(settings, overrides),
        gpu_check=gpu_check,
        write=write,
        as_json=as_json,
    )


COMMANDS = (evolve, stage, simulate, report, validate, doctor)
