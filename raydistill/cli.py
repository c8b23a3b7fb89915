"""The command line: thin shells round the Python calls of `raydistill.commands`."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

import raydistill
from raydistill.config.loader import check_complete
from raydistill.errors import ConfigError
from raydistill.exits import STOPPED, leave, run, when_stopped

app = typer.Typer(
    help="Distil one small multi-task student from experts of several domains, on Ray.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

ConfigArgument = Annotated[str, typer.Argument(help="a YAML config, or the name of a shipped recipe such as demo")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="overrides, such as distill.temperature=3")
]
Out = Annotated[str | None, typer.Option(help="run folder, or a URL such as s3://bucket/runs/NAME; default runs/NAME")]
RunArgument = Annotated[str, typer.Argument(help="a run folder that `raydistill distill` wrote, or its URL")]


def _version(show: bool) -> None:
    if show:
        typer.echo(f"raydistill {raydistill.__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="print it")] = False,
) -> None:
    pass


def _load(config: str, overrides: list[str] | None) -> raydistill.Config:
    """Here, before a command loads torch: a mistake in the config is told at once."""
    _import_from_here()
    return raydistill.load_config(config, overrides or ())


def _import_from_here() -> None:
    """A `python` teacher of the config that is run may lie beside it.

    Only there, and last: a file `json.py` in another person's run folder is not what anybody means by `import json`.
    """
    try:
        here = str(Path.cwd())
    except FileNotFoundError:
        raise ConfigError("the folder that this command was called in is gone; go to another one") from None
    if here not in sys.path:
        sys.path.append(here)


def _complete(config: str, overrides: list[str] | None) -> raydistill.Config:
    loaded = _load(config, overrides)
    check_complete(loaded)
    return loaded


@app.command()
def teach(
    config: ConfigArgument,
    overrides: Overrides = None,
    out: Out = None,
    again: Annotated[bool, typer.Option("--again", help="train the cached teachers anew")] = False,
) -> None:
    """Train or fine-tune the teachers that have no checkpoint yet."""
    raydistill.teach(_load(config, overrides), out=out, again=again)


@app.command()
def label(config: ConfigArgument, overrides: Overrides = None, out: Out = None) -> None:
    """Write every teacher's soft labels ahead of time."""
    raydistill.label(_complete(config, overrides), out=out)


@app.command()
def distill(
    config: ConfigArgument,
    overrides: Overrides = None,
    out: Out = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="students of each kind; short for num_seeds=N")] = None,
    again: Annotated[bool, typer.Option("--again", help="start over, whatever the run folder holds")] = False,
) -> None:
    """Distil one student, and report before against after."""
    words = [*(overrides or ()), *([f"num_seeds={seeds}"] if seeds is not None else [])]
    raydistill.distill(_complete(config, words), out=out, again=again)


@app.command()
def plan(
    config: ConfigArgument,
    overrides: Overrides = None,
    nodes: Annotated[
        str | None, typer.Option(help="of a cluster that is not there, such as 64xL4:role=teacher,8xH100")
    ] = None,
    speed: Annotated[
        list[str] | None, typer.Option(metavar="KIND=TIMES", help="a GPU in times of this machine's, such as L4=3.5")
    ] = None,
    probe: Annotated[bool, typer.Option("--probe/--no-probe", help="time a few real micro-batches here")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="print the same as JSON")] = False,
) -> None:
    """Say what a run asks for, who would wait, how fast it would be and who holds it up; nothing is trained."""
    raydistill.plan(_complete(config, overrides), nodes=nodes, speeds=speed or (), probe=probe, as_json=as_json)


@app.command()
def tune(
    space: Annotated[
        str | None, typer.Argument(help="a YAML search space, or the name of one in search_spaces/")
    ] = None,
    overrides: Overrides = None,
    config: Annotated[str | None, typer.Option(help="searched around, instead of the space's own")] = None,
    trials: Annotated[int | None, typer.Option(help="in all; more than before extend a sweep")] = None,
    out: Annotated[str | None, typer.Option(help="the sweep's folder; default runs/tune-NAME")] = None,
    resume: Annotated[Path | None, typer.Option(help="go on with the sweep in this folder")] = None,
    seeds: Annotated[
        int, typer.Option(min=0, help="then compare the best setting with the default one, each with N new seeds")
    ] = 0,
) -> None:
    """Search a space from search_spaces/ with Ray Tune and Optuna; teachers are paid for once."""
    _import_from_here()
    if resume is not None:
        if space is not None or overrides or config is not None or out is not None:
            raise typer.BadParameter("--resume takes the space and the config from its folder; leave the others out")
        _say_how_to_resume(resume, seeds)
        raydistill.resume_sweep(resume, num_trials=trials, num_seeds=seeds)
    elif space is None:
        raise typer.BadParameter("name a search space, or --resume FOLDER")
    else:
        from raydistill.tuning.space import load_space, sweep_path

        loaded = load_space(space)
        folder = sweep_path(loaded, out)
        _say_how_to_resume(folder, seeds)
        raydistill.tune(loaded, overrides or (), out=folder, config=config, num_trials=trials, num_seeds=seeds)


def _say_how_to_resume(folder: Path, seeds: int) -> None:
    def tell() -> str:
        if not (folder / "space.json").is_file():
            return STOPPED
        also = f" --seeds {seeds}" if seeds else ""
        return f"stopped; go on with: raydistill tune --resume {shlex.quote(str(folder))}{also}"

    when_stopped(tell)


@app.command()
def submit(
    config: Annotated[str | None, typer.Argument(help="as of `distill`; with --tune what is searched around")] = None,
    overrides: Overrides = None,
    tune: Annotated[str | None, typer.Option(metavar="SPACE", help="search this space, as `raydistill tune`")] = None,
    trials: Annotated[int | None, typer.Option(help="of a search, in all")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="as of `distill`, or of `tune`")] = None,
    again: Annotated[bool, typer.Option("--again", help="start over, whatever the run folder holds")] = False,
    out: Annotated[
        str | None, typer.Option(help="whole path on storage of the cluster, or a URL; default: in its RAYDISTILL_RUNS")
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="of the job server; default RAY_API_SERVER_ADDRESS, or http://127.0.0.1:8265")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="follow the job to its end")] = True,
    install: Annotated[bool, typer.Option("--install", help="let Ray install there the versions from here")] = False,
) -> None:
    """Run `distill`, or `tune`, as a job of a cluster: only the config goes there, and modules that it names."""
    words = list(overrides or ())
    if tune is not None and config is not None and "=" in config:
        words, config = [config, *words], None
    if tune is None and (config is None or trials is not None):
        raise typer.BadParameter("name a config" if config is None else "--trials goes with --tune SPACE")
    if tune is not None and again:
        raise typer.BadParameter("--again is for a distillation; a sweep takes another --out")
    _import_from_here()
    options = [*(["--trials", str(trials)] if trials else []), *(["--again"] if again else [])]
    space = None
    if tune is not None:
        from raydistill.tuning.checking import assignments, base_config, check_space
        from raydistill.tuning.space import load_space

        loaded = load_space(tune)
        config = config or loaded.config
        check_space(loaded, base_config(loaded.model_copy(update={"config": config}), words))
        space = loaded.model_dump(mode="json", by_alias=True)
        # As there: the words of the command line win over the space's own base.
        words = [*assignments(loaded.base), *words]
    assert config is not None
    options += ["--seeds", str(seeds)] if seeds else []
    ended = raydistill.submit(
        config, words, space=space, options=options, out=out, address=address, wait=wait, install=install,
        on_submitted=_follow,
    )  # fmt: skip
    if ended.exit_code:
        typer.echo(f"job {ended.id}: {ended.status.lower()}, exit code {ended.exit_code}", err=True)
        leave(ended.exit_code)


def _follow(job: raydistill.Job) -> None:
    when_stopped(lambda: f"not followed any more; job {job.id} goes on: {job.how_to}")
    typer.echo(f"job {job.id}: {job.how_to}", err=True)


@app.command()
def evaluate(
    run: RunArgument,
    overrides: Overrides = None,
    split: Annotated[str, typer.Option(help="train, validation or test")] = "test",
    out: Annotated[Path | None, typer.Option(help="folder of evaluation.json; default: the run's own")] = None,
) -> None:
    """Evaluate a finished student again, on the same data or on new (tasks.NAME.data.path=…)."""
    raydistill.evaluate(run, overrides or (), split=split, out=out)


@app.command()
def report(run: RunArgument) -> None:
    """Print a run's report and draw its pictures again."""
    raydistill.report(run)


@app.command()
def teachers(
    stop: Annotated[bool, typer.Option("--stop", help="end all pools and their replicas")] = False,
    address: Annotated[str | None, typer.Option(help="host:port of a cluster; default: this machine's")] = None,
) -> None:
    """List the pools of teachers that run, who uses them and how busy they are."""
    if stop:
        raydistill.stop_teachers(address)
    else:
        raydistill.list_teachers(address)


@app.command()
def doctor(
    config: Annotated[str | None, typer.Argument(metavar="[CONFIG]", help="default: the default settings")] = None,
    overrides: Overrides = None,
    out: Out = None,
) -> None:
    """Look at versions, Ray, GPUs, storage, clocks and space, here and on every node; exit code 1: mend something."""
    if config is not None and "=" in config and not Path(config).exists():
        overrides, config = [config, *(overrides or ())], None
    if any(finding.is_error for finding in raydistill.doctor(config, overrides or (), out=out)):
        raise typer.Exit(1)


store = typer.Typer(help="What is kept of the teachers' answers.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(store, name="store")
StoreOf = Annotated[str | None, typer.Argument(metavar="[CONFIG]", help="whose store; default: the one in the cache")]


@store.command("list")
def list_(config: StoreOf = None, overrides: Overrides = None) -> None:
    """Every table: whose word on what, how much of it, how large, when last used."""
    raydistill.list_store(config, overrides or ())


@store.command()
def verify(config: StoreOf = None, overrides: Overrides = None) -> None:
    """Compare every checksum; what is damaged is dropped and made again by the next run."""
    raydistill.verify_store(config, overrides or ())


@store.command()
def prune(
    size: Annotated[str, typer.Option(help="what may stay, such as 10GB")],
    config: StoreOf = None,
    overrides: Overrides = None,
) -> None:
    """Remove tables, the least recently used first, until the rest fits a size."""
    raydistill.prune_store(config, overrides or (), size=size)


@app.command()
def methods(name: Annotated[str | None, typer.Argument(help="tell all of this one")] = None) -> None:
    """List the losses, ways to fuse teachers and to balance tasks, and trunks that a config can name."""
    raydistill.list_methods(name)


@app.command()
def recipes() -> None:
    """List the recipes that come with the package; with `raydistill distill NAME` they run."""
    for name in sorted(raydistill.list_recipes()):
        typer.echo(f"{name:16}{' '.join(raydistill.load_config(name).description.split())}")


def set_libraries_up() -> None:
    """Before they are imported, which is when they read it."""
    # Ray would tell of each dead replica at length, on the user's own output.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "A worker died or was killed while executing")
    if not sys.stderr.isatty():  # a log wants lines, not the bars of a download
        os.environ.setdefault("TQDM_DISABLE", "1")
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def main() -> None:
    """Entry point: see `exits.run` for the exit codes."""
    set_libraries_up()
    run(app)


if __name__ == "__main__":
    main()
