"""`contextrl rollout` from the outside: exit codes, files, and what it prints."""

from __future__ import annotations

import json

import pytest

from contextrl.agents.manifest import read_manifest
from contextrl.agents.store import read_trajectories
from contextrl.envs import grading, places
from contextrl.envs.supply import SupplyingProvider
from contextrl.envs.tasks import write_tasks
from contextrl.scripts.cli import main


@pytest.fixture
def task_file(tmp_path, make_task):
    path = tmp_path / "tasks.jsonl"
    write_tasks(path, [make_task(f"toy-{n}") for n in range(3)])
    return path


@pytest.fixture
def cli(tmp_path, task_file, monkeypatch, make_provider, make_grader, capsys):
    """Runs the verb on a fake engine; gives its exit code, stdout and stderr."""
    provider = make_provider()
    provider.run_id = "test"

    def open_provider(**_):
        return SupplyingProvider(provider, lambda task: "built:1")

    monkeypatch.setattr(places, "open_provider", open_provider)
    monkeypatch.setattr(grading, "DockerGrader", lambda provider: make_grader())

    def run(*args: str):
        with pytest.raises(SystemExit) as exit_:
            main(["rollout", "--tasks", str(task_file), "--out", str(tmp_path / "run"), *args])
        return exit_.value.code, *capsys.readouterr()

    return run


def test_a_scripted_run_leaves_a_complete_folder_and_a_table(cli, tmp_path):
    code, out, _ = cli("--policy", "scripted", "--samples", "2", "--limit", "2")
    assert code == 0
    assert "4 of 4 (100.0%)" in out
    stored = list(read_trajectories(tmp_path / "run"))
    assert sorted(t.trajectory_id for t in stored) == [
        f"toy-{n}/rollout-0/{sample}" for n in range(2) for sample in range(2)
    ]
    assert {t.config["image"] for t in stored} == {"built:1"}
    manifest = read_manifest(tmp_path / "run")
    assert manifest.finished
    assert manifest.counts == {"submitted": 4}


def test_a_run_is_refused_resumed_extended_and_overwritten(cli):
    assert cli("--policy", "scripted", "--limit", "1")[0] == 0
    code, _, err = cli("--policy", "scripted")
    assert code == 1
    assert err.count("\n") == 1
    assert "--resume" in err
    code, out, _ = cli("--policy", "scripted", "--samples", "2", "--resume", "--json")
    assert code == 0
    assert json.loads(out)["episodes"] == 6
    code, _, err = cli("--policy", "scripted", "--prompts", "swe", "--resume")
    assert code == 1
    assert "differs in prompts;" in err
    code, out, _ = cli("--policy", "scripted", "--overwrite", "--limit", "1", "--json")
    assert json.loads(out)["episodes"] == 1
    assert cli("--policy", "scripted", "--overwrite", "--resume")[0] == 2


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (
            ("--policy", "magic"),
            2,
            "expected scripted, scripted:looking, endpoint:URL or local:PATH",
        ),
        (("--policy", "endpoint:http://x/v1"), 2, "needs --model"),
        (("--policy", "endpoint:x", "--model", "m"), 1, "expected http(s)"),
        (("--policy", "local:/nowhere"), 1, "expected a model folder"),
        (
            ("--policy", "scripted", "--prompts", "fancy"),
            1,
            "expected one of compact, openhands, openhands-tags, swe, swe-plus",
        ),
        (("--policy", "scripted", "--samples", "0"), 2, "--samples"),
    ],
)
def test_wrong_input_is_one_line_and_leaves_no_folder(cli, tmp_path, args, code, said):
    got, _, err = cli(*args)
    assert got == code
    assert said in err
    assert "Traceback" not in err
    assert not (tmp_path / "run").exists()


def test_an_empty_task_file_is_refused(cli, task_file):
    task_file.write_text("")
    code, _, err = cli("--policy", "scripted")
    assert code == 1
    assert "task" in err
