"""The folder of a run, from its first second to what `--resume` finds there. Shared by all jobs."""

from __future__ import annotations

import argparse
import datetime
import itertools
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from contextrl.scripts import console, file_lock
from contextrl.scripts.stages import Stages
from contextrl.verl_ext.errors import ConfigError

COMPOSED = "composed.yaml"
"""Preset and overrides, written when a run begins."""
CONFIG = "config.yaml"
"""All that the trainer needs, written when everything before it is done."""


LOCK = ".lock"
"""Locked while a job works on the run."""

_locks: dict[Path, int] = {}
"""Open until this process ends, and with it what it does to its runs."""


def new_run_dir(config: DictConfig, kind: str = "swe") -> Path:
    """`job.run_dir`, or a folder named by the kind of job and the time; it holds `COMPOSED`.

    It is this process's own, see `hold`.
    """
    if config.job.run_dir:
        run_dir = Path(config.job.run_dir).absolute()
        run_dir.mkdir(parents=True, exist_ok=True)
        hold(run_dir)
        if (run_dir / COMPOSED).exists():
            raise ConfigError(
                f"expected no run in {run_dir}, found one; continue it with --resume {run_dir} or "
                "name another folder"
            )
    else:
        now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
        run_dir = _fresh(Path("runs", f"{kind}-{now}").absolute())
        hold(run_dir)
    save_whole(config, run_dir / COMPOSED)
    return run_dir


def _fresh(wanted: Path) -> Path:
    """A new folder of this name, or with a number behind it: jobs may begin in the same second."""
    for number in itertools.count(1):
        folder = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            continue
    raise AssertionError("numbers do not end")


def hold(run_dir: Path) -> None:
    """No other process works on this run until this one ends. Raises `ConfigError` if one does."""
    run_dir = run_dir.resolve()
    if run_dir in _locks:
        return
    try:
        _locks[run_dir] = file_lock.take(run_dir / LOCK, wait=False)
    except BlockingIOError:
        pid = file_lock.holder(run_dir / LOCK)
        raise ConfigError(
            f"expected no job at work on {run_dir}, found process {pid}; wait for it or end it"
        ) from None


def load_run(run_dir: Path) -> DictConfig:
    """Its configuration: as the trainer had it, or, if the run ended earlier, as it was asked for.

    In the second case the stages before training run again, most of them from the cache.
    """
    for name in (CONFIG, COMPOSED):
        if (run_dir / name).exists():
            config = OmegaConf.load(run_dir / name)
            assert isinstance(config, DictConfig)
            return config
    raise ConfigError(
        f"expected a run with a {CONFIG} in {run_dir}, found none; name a folder below runs/, or "
        "start a new run without --resume"
    )


def save_whole(config: DictConfig, path: Path) -> None:
    """`path` appears complete or not at all."""
    draft = path.with_name(f".{path.name}")
    OmegaConf.save(config, draft)
    os.replace(draft, path)


def container(config: DictConfig) -> dict[str, Any]:
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, Mapping)
    return {str(key): value for key, value in plain.items()}


def is_given(config: DictConfig, key: str) -> bool:
    """Whether a preset or override named a model; veRL's default is a path that exists nowhere."""
    value = OmegaConf.select(config, key)
    return value is not None and value != "~/models/deepseek-llm-7b-chat"


def last_checkpoint(run_dir: Path) -> Path:
    """The Hugging Face folder of the last step that was saved."""
    folders = (run_dir / "checkpoints").glob("global_step_*/actor/huggingface")
    saved = sorted(folders, key=lambda folder: int(folder.parents[1].name.rpartition("_")[2]))
    if not saved:
        raise ConfigError(
            f"expected a checkpoint in {run_dir}/checkpoints, found none; set trainer.save_freq"
        )
    return saved[-1]


def job_main(
    script: str,
    description: str,
    epilog: str,
    run: Callable[[Sequence[str], Path | None, Stages], Path],
    argv: Sequence[str] | None = None,
) -> int:
    """The command line of a job: Hydra overrides, or `--resume`. Ends with an exit code."""
    parser = argparse.ArgumentParser(prog=script, description=description, epilog=epilog)
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--resume", type=Path, metavar="RUN", help="go on with this run folder")
    arguments = parser.parse_args(argv)
    console.log_to_stderr(0)
    stages = Stages(Console(stderr=True))
    # A scheduler's SIGTERM ends the run as Ctrl-C does: trainer and sandboxes with it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)

    def job() -> None:
        if arguments.resume and arguments.overrides:
            raise ConfigError("expected --resume alone: a resumed run keeps its own configuration")
        resume = arguments.resume.absolute() if arguments.resume else None
        if resume is not None and resume.is_dir():
            hold(resume)
        print(run(arguments.overrides, resume, stages))

    return console.run(job)
