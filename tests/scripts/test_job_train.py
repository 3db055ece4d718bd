import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from contextrl.scripts import job_train
from contextrl.scripts.job_train import TrainingFailedError, read_metrics, summary_line, train
from contextrl.verl_ext.line_file import open_to_append


def line(kind, step, **metrics):
    return json.dumps({"kind": kind, "step": step, "metrics": metrics}) + "\n"


def test_of_steps_done_twice_the_later_counts_and_a_torn_line_waits(tmp_path):
    text = line("train", 1, r=0.1) + line("train", 2, r=0.2) + line("train", 2, r=0.9)
    (tmp_path / "metrics.jsonl").write_text(text + '{"kind": "tra')
    assert [(m.step, m.metrics["r"]) for m in read_metrics(tmp_path)] == [(1, 0.1), (2, 0.9)]


def test_a_line_torn_by_a_kill_takes_no_later_one_with_it(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_text(line("train", 1, r=0.1) + '{"kind": "tra')
    for _ in range(2):  # of a run that was resumed, and then once more
        descriptor = open_to_append(file)
        os.write(descriptor, line("train", 2, r=0.2).encode())
        os.close(descriptor)
    assert [(m.step, m.metrics["r"]) for m in read_metrics(tmp_path)] == [(1, 0.1), (2, 0.2)]
    assert file.read_text().count("\n") == 4


def trainer(monkeypatch, script):
    """Puts `script` in the trainer's place."""
    real = subprocess.Popen

    def popen(command, **options):
        return real([sys.executable, "-c", script, *command[3:]], **options)

    monkeypatch.setattr(job_train.subprocess, "Popen", popen)


def test_metrics_are_reported_as_they_come(tmp_path, monkeypatch):
    body = line("train", 1, r=0.5)
    trainer(monkeypatch, f"open({str(tmp_path / 'metrics.jsonl')!r}, 'w').write({body!r})")
    seen = []
    train(tmp_path, cpu=True, on_metrics=seen.append)
    assert [m.step for m in seen] == [1]


def test_a_failed_trainer_names_its_cause_and_how_to_go_on(tmp_path, monkeypatch):
    trainer(monkeypatch, "print('noise'); raise RuntimeError('disk on fire')")
    with pytest.raises(TrainingFailedError, match="disk on fire") as error:
        train(tmp_path, cpu=True, on_metrics=lambda _: None)
    assert f"--resume {tmp_path}" in str(error.value)


@pytest.mark.parametrize(
    ("written", "said"),
    [("not stored: is the disk full?", "is the disk full"), ("", "could not be stored")],
)
def test_an_episode_that_no_disk_takes_ends_a_trainer_that_would_go_on(
    tmp_path, monkeypatch, written, said
):
    fatal = tmp_path / "fatal.txt"
    fatal.write_text("of the run that is resumed here")
    script = (
        "import pathlib, time\n"
        f"assert not pathlib.Path({str(fatal)!r}).exists()\n"
        f"pathlib.Path({str(fatal)!r}).write_text({written!r})\n"
        "time.sleep(600)\n"
    )
    trainer(monkeypatch, script)
    with pytest.raises(TrainingFailedError, match=said) as error:
        train(tmp_path, cpu=True, on_metrics=lambda _: None)
    assert f"--resume {tmp_path}" in str(error.value)


def test_a_failure_on_a_full_disk_says_so(tmp_path, monkeypatch):
    trainer(monkeypatch, "raise RuntimeError('unexpected pos 64 vs 0')")  # as torch.save puts it
    usage = job_train.shutil.disk_usage(tmp_path)._replace(free=3 << 20)
    monkeypatch.setattr(job_train.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(TrainingFailedError, match=r"unexpected pos.*its disk has only 3 MB free"):
        train(tmp_path, cpu=True, on_metrics=lambda _: None)


def test_an_interrupt_leaves_no_process_of_the_trainer(tmp_path, monkeypatch):
    pid_file = tmp_path / "pid"
    child = "import time; time.sleep(600)"
    script = (
        "import subprocess, sys, time\n"
        f"p = subprocess.Popen([sys.executable, '-c', {child!r}])\n"
        f"open({str(tmp_path / 'metrics.jsonl')!r}, 'w').write({line('train', 1)!r})\n"
        f"open({str(pid_file)!r}, 'w').write(str(p.pid))\n"
        "time.sleep(600)\n"
    )
    trainer(monkeypatch, script)

    def interrupt(_):
        while not pid_file.exists() or not pid_file.read_text():
            pass
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, cpu=True, on_metrics=interrupt)
    state = Path("/proc", pid_file.read_text(), "stat")
    assert not state.exists() or state.read_text().split()[2] == "Z"


def test_a_step_reads_in_one_line():
    (step,) = [
        job_train.MetricsLine(
            kind="train", step=3, metrics={"critic/rewards/mean": 0.25, "ca/accuracy": 0.5}
        )
    ]
    assert summary_line(step, 10) == "step 3/10  reward 0.250  ca acc 0.50"
