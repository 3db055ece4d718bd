"""A run folder from its first second: what `--resume` finds there."""

import contextlib
import subprocess
import sys

import pytest
from omegaconf import OmegaConf

from contextrl.envs.cleanup import run_label
from contextrl.scripts.run_folder import (
    COMPOSED,
    CONFIG,
    hold,
    job_main,
    load_run,
    new_run_dir,
    save_whole,
)
from contextrl.verl_ext.compose import compose
from contextrl.verl_ext.errors import ConfigError


@pytest.fixture
def begun(tmp_path):
    """A run that ended before its training."""
    config = compose([f"job.run_dir={tmp_path / 'run'}", "ca.lam=0.25"])
    return new_run_dir(config)


def test_a_run_that_ended_before_training_keeps_what_it_was_asked_for(begun):
    assert load_run(begun).ca.lam == 0.25
    assert not (begun / CONFIG).exists()


def test_a_run_that_reached_training_goes_on_with_what_the_trainer_had(begun):
    save_whole(OmegaConf.create({"ca": {"lam": 0.5}}), begun / CONFIG)
    assert load_run(begun).ca.lam == 0.5


def test_a_folder_with_a_run_is_not_begun_anew(begun):
    with pytest.raises(ConfigError, match="--resume"):
        new_run_dir(compose([f"job.run_dir={begun}"]))


def test_a_folder_without_a_run_cannot_be_resumed(tmp_path):
    with pytest.raises(ConfigError, match="found none"):
        load_run(tmp_path)


def test_two_jobs_that_begin_in_the_same_second_have_two_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("contextrl.scripts.run_folder.datetime", Clock)
    folders = [
        new_run_dir(OmegaConf.create({"job": {"run_dir": "", "seed": seed}})) for seed in range(3)
    ]
    assert [folder.name for folder in folders] == ["swe-now", "swe-now-2", "swe-now-3"]
    assert [OmegaConf.load(folder / COMPOSED).job.seed for folder in folders] == [0, 1, 2]


class Clock:
    """In the place of the module `datetime`."""

    @classmethod
    def now(cls):
        return cls()

    def strftime(self, form):
        return "now"


Clock.datetime = Clock


@contextlib.contextmanager
def at_work(run_dir):
    """Another process that holds the run."""
    script = (
        "import sys, pathlib\n"
        "from contextrl.scripts.run_folder import hold\n"
        "hold(pathlib.Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", script, str(run_dir)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.stdin.close()


def test_a_run_at_work_is_neither_resumed_nor_begun_anew(tmp_path, capsys):
    run_dir = tmp_path / "run"
    run_dir.mkdir()

    def run(overrides, resume, stages):
        return resume

    arguments = ["x.sh", "", "", run, ["--resume", str(run_dir)]]
    with at_work(run_dir) as process:
        assert job_main(*arguments) == 1
        said = capsys.readouterr().err
        assert said == (
            f"contextrl: expected no job at work on {run_dir}, found process {process.pid}; "
            "wait for it or end it\n"
        )
        with pytest.raises(ConfigError, match=f"process {process.pid}"):
            new_run_dir(compose([f"job.run_dir={run_dir}"]))
    assert job_main(*arguments) == 0
    hold(run_dir)  # its own process may do so again


def test_runs_of_one_name_in_two_places_have_two_labels(tmp_path):
    folders = [tmp_path / place / "swe-1" for place in ("a", "b")]
    folders[0].mkdir(parents=True)
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert run_label(folders[0]) == run_label(folders[1])
    assert run_label(folders[0]) != run_label(tmp_path / "swe-1")
    assert run_label(folders[0]).startswith("swe-1-")
