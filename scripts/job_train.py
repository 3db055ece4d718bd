"""Stage `train`: veRL in a process of its own, watched through the metrics file it appends to."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from contextrl.agents.prompting import prompt_set
from contextrl.envs.types import Record, Task
from contextrl.verl_ext.episodes import FATAL
from contextrl.verl_ext.errors import VerlExtError
from contextrl.verl_ext.register import environment

METRICS = "metrics.jsonl"
LOG = "train.log"
LOG_TAIL = 400
"""Lines searched for the cause of a failure."""
LITTLE_DISK_MB = 64
"""With less the failure of a training may be the disk's."""


class TrainingFailedError(VerlExtError):
    """The trainer's process ended with an error."""


class MetricsLine(Record):
    """One line of `metrics.jsonl`."""

    kind: str
    """`train` after a step, `validate` after a validation."""
    step: int
    metrics: dict[str, float]


def write_dataset(
    path: Path, tasks: Mapping[str, Sequence[Task]], prompts_name: str, *, phase: str
) -> None:
    """veRL's parquet: one row per task; the split's name is veRL's data source."""
    import pandas as pd

    prompts = prompt_set(prompts_name)
    rows = [
        {
            "data_source": split,
            "prompt": [message.model_dump() for message in prompts.render_task(task)],
            "reward_model": {"style": "rule", "ground_truth": ""},
            "extra_info": {"index": index, "task_id": task.task_id, "phase": phase},
        }
        for split, of_split in tasks.items()
        for index, task in enumerate(of_split)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_parquet(path)


def train(run_dir: Path, *, cpu: bool, on_metrics: Callable[[MetricsLine], None]) -> None:
    """Run the trainer on `run_dir/config.yaml` to its end. Its output goes to `run_dir/train.log`.

    Ctrl-C ends the trainer, and Ray with it, before it is raised again. Raises
    `TrainingFailedError` naming the cause.
    """
    command = [sys.executable, "-m", "contextrl.verl_ext.main", str(run_dir)]
    threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(os.cpu_count() or 1))}
    env = {**os.environ, **(threads if cpu else {}), **environment(cpu=cpu)}
    lines = _Tail(run_dir / METRICS)
    fatal = run_dir / FATAL
    fatal.unlink(missing_ok=True)
    with (run_dir / LOG).open("ab") as log:
        process = subprocess.Popen(
            command, env=env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            while process.poll() is None:
                for line in lines.new():
                    on_metrics(line)
                if fatal.exists():
                    time.sleep(0.2)  # until its one line is written
                    raise TrainingFailedError(_failed(run_dir, "training was ended", _said(fatal)))
                time.sleep(0.2)
        except BaseException:
            _end(process)
            raise
        for line in lines.new():
            on_metrics(line)
    if process.returncode != 0 or fatal.exists():
        how = f"training ended with status {process.returncode}"
        raise TrainingFailedError(_failed(run_dir, how, _said(fatal) or _cause(run_dir / LOG)))


def read_metrics(run_dir: Path) -> list[MetricsLine]:
    """In order; of steps that a resumed run did twice, the later one."""
    latest: dict[tuple[str, int], MetricsLine] = {}
    for line in _Tail(run_dir / METRICS).new():
        latest[(line.kind, line.step)] = line
    return sorted(latest.values(), key=lambda line: (line.step, line.kind))


class _Tail:
    """Whole lines that were appended since the last look, less those that a kill tore."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def new(self) -> Iterator[MetricsLine]:
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            for raw in file:
                if not raw.endswith(b"\n"):
                    return
                self._offset += len(raw)
                try:
                    line = MetricsLine.model_validate(json.loads(raw))
                except ValueError:
                    continue
                yield line


def _end(process: subprocess.Popen[bytes]) -> None:
    """The trainer and everything Ray started under it."""
    for sign, patience_s in ((signal.SIGINT, 10.0), (signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
        _signal_group(process, sign)
        try:
            process.wait(patience_s)
            break
        except subprocess.TimeoutExpired:
            continue
    _signal_group(process, signal.SIGKILL)


def _signal_group(process: subprocess.Popen[bytes], sign: signal.Signals) -> None:
    try:
        os.killpg(process.pid, sign)
    except ProcessLookupError:
        return


def _failed(run_dir: Path, how: str, cause: str) -> str:
    free_mb = shutil.disk_usage(run_dir).free >> 20
    # Who writes checkpoints does not say why a write failed.
    full = f"; its disk has only {free_mb} MB free" if free_mb < LITTLE_DISK_MB else ""
    return (
        f"{how}: {cause or 'an episode could not be stored'}{full}; the whole log is in "
        f"{run_dir / LOG}; go on with --resume {run_dir}"
    )


def _said(fatal: Path) -> str:
    return fatal.read_text(encoding="utf-8").strip() if fatal.exists() else ""


def _cause(log: Path) -> str:
    """The last line that names an exception, without Ray's prefix."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_TAIL:]
    for line in reversed(lines):
        text = line.split(") ", 1)[-1] if line.startswith("(") else line
        head = text.split(":", 1)[0].strip()
        if head.endswith(("Error", "Exception", "Interrupt")) and " " not in head:
            return text.strip()[:400]
    return lines[-1].strip()[:400] if lines else "nothing was logged"


def summary_line(line: MetricsLine, total_steps: int | None) -> str:
    """What a reader wants to see of one step."""
    m: Mapping[str, Any] = line.metrics
    parts = []
    if line.kind == "train":
        parts.append(f"step {line.step}/{total_steps or '?'}")
        wanted = (
            ("reward", "critic/rewards/mean", ".3f"),
            ("ca acc", "ca/accuracy", ".2f"),
            ("ca loss", "ca/loss", ".3f"),
            ("entropy", "actor/entropy", ".3f"),
            ("rollout s", "timing_s/gen", ".1f"),
            ("update s", "timing_s/update_actor", ".1f"),
            ("step s", "timing_s/step", ".1f"),
        )
    else:
        parts.append(f"validation at step {line.step}:")
        rewards = [key for key in sorted(m) if key.startswith("val-core/") and "/mean@" in key]
        wanted = (
            *((key.split("/")[1], key, ".3f") for key in rewards),
            ("probe", "probe/accuracy", ".3f"),
        )
    parts += [f"{name} {m[key]:{form}}" for name, key, form in wanted if key in m]
    return "  ".join(parts)
