"""What a user of `contextrl` sees: its verbs, its exit codes, one line per expected failure."""

from __future__ import annotations

import errno
import json
import logging
import subprocess
import sys
import time

import pytest
import typer

from contextrl.agents.errors import AgentsError
from contextrl.envs.errors import ImageError
from contextrl.pairs.errors import PairFileError
from contextrl.scripts import cli, console


def contextrl(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "contextrl.scripts.cli", *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def verb(monkeypatch):
    """Installs a verb `boom` that raises what it is given; returns the exit code of calling it."""

    def call(error: BaseException) -> int | None:
        def boom() -> None:
            raise error

        monkeypatch.setitem(cli.VERBS, "boom", cli.Verb("Fail.", lambda: cli._single(boom)))
        with pytest.raises(SystemExit) as exit_:
            cli.main(["boom"])
        return exit_.value.code

    return call


def test_help_names_every_verb_on_stdout():
    done = contextrl("--help")
    assert done.returncode == 0
    assert done.stderr == ""
    for name in ("rollout", "tasks", "mine", "probe", "bench", "clean"):
        assert f"\n  {name} " in done.stdout


def test_version_is_the_installed_one():
    done = contextrl("--version")
    assert (done.returncode, done.stdout) == (0, f"contextrl {cli.version('contextrl')}\n")


@pytest.mark.parametrize("name", cli.VERBS)
def test_every_verb_explains_itself(name):
    done = contextrl(name, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"contextrl {name}" in done.stdout


def test_tasks_has_its_three_verbs():
    done = contextrl("tasks", "--help")
    for name in ("validate", "show", "build"):
        assert f"\n  {name} " in done.stdout


@pytest.mark.parametrize(
    "args", [["nope"], ["--nope"], ["tasks", "nope"], ["rollout", "--no-such-option"]]
)
def test_wrong_usage_exits_2_without_a_traceback(args):
    done = contextrl(*args)
    assert done.returncode == 2
    assert args[-1] in done.stderr
    assert "Traceback" not in done.stderr


HEAVY = ("torch", "transformers", "verl", "ray", "docker", "datasets", "pydantic", "rich")


def loaded_after(statement: str) -> set[str]:
    script = f"import json, sys\n{statement}\nprint(json.dumps([*sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_help_loads_nothing_heavy():
    show_help = (
        "from contextrl.scripts import cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit as done: assert done.code == 0"
    )
    assert loaded_after(show_help).isdisjoint(HEAVY)


def test_no_verb_loads_torch_before_it_runs():
    load_all = "from contextrl.scripts import cli\nfor verb in cli.VERBS.values(): verb.load()"
    assert loaded_after(load_all).isdisjoint({"torch", "transformers", "verl", "ray"})


def test_rollout_tasks_and_mining_need_no_extras():
    extras = ["torch", "transformers", "verl", "ray", "datasets", "numpy", "matplotlib", "git"]
    loaded_after(
        f"sys.modules.update(dict.fromkeys({extras}))  # an import of them now fails\n"
        "from contextrl.scripts import cli\n"
        "for name in ('rollout', 'tasks', 'mine', 'clean'): cli.VERBS[name].load()"
    )


def test_help_answers_quickly():
    started = time.perf_counter()
    contextrl("--help")
    # Half a second on an idle machine; the bound leaves room for a busy one.
    assert time.perf_counter() - started < 3.0


@pytest.mark.parametrize(
    "error",
    [
        ImageError("image x not found;\n run: contextrl tasks build"),
        AgentsError("image x not found; run: contextrl tasks build"),
        PairFileError("image x not found; run: contextrl tasks build"),
        console.ScriptError("image x not found; run: contextrl tasks build"),
    ],
)
def test_an_error_of_ours_is_one_line_and_exit_1(verb, capsys, error):
    assert verb(error) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == "contextrl: image x not found; run: contextrl tasks build\n"


def test_every_package_has_its_root_error_named():
    from contextrl.verl_ext.errors import VerlExtError

    assert console.expected_failure(VerlExtError("said")) == "said"
    for name in console.ROOT_ERRORS:
        module, _, kind = name.rpartition(".")
        assert issubclass(getattr(sys.modules[module], kind), Exception)


def test_a_full_disk_is_one_line(verb, capsys):
    assert verb(OSError(errno.ENOSPC, "No space left on device", "runs/1/x.jsonl")) == 1
    assert capsys.readouterr().err == (
        "contextrl: expected free disk space for runs/1/x.jsonl, found none;"
        " free some and run again\n"
    )


def test_ctrl_c_exits_130_in_one_line(verb, capsys):
    assert verb(KeyboardInterrupt()) == 130
    assert capsys.readouterr().err.strip() == "contextrl: interrupted"


def test_a_verb_may_choose_its_exit_code(verb):
    assert verb(typer.Exit(3)) == 3


def test_a_bug_keeps_its_traceback(monkeypatch):
    def boom() -> None:
        raise KeyError("bug")

    monkeypatch.setitem(cli.VERBS, "boom", cli.Verb("Fail.", lambda: cli._single(boom)))
    with pytest.raises(KeyError):
        cli.main(["boom"])


@pytest.mark.parametrize(
    ("verbosity", "ours", "others"),
    [(0, logging.WARNING, logging.WARNING), (1, logging.INFO, logging.WARNING), (2, 10, 20)],
)
def test_verbosity_is_ours_before_it_is_others(monkeypatch, verbosity, ours, others):
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", logging.NOTSET)
    monkeypatch.setattr(logging.getLogger("contextrl"), "level", logging.NOTSET)
    console.log_to_stderr(verbosity)
    try:
        assert logging.getLogger("contextrl.envs.docker").getEffectiveLevel() == ours
        assert logging.getLogger("urllib3").getEffectiveLevel() == others
    finally:
        logging.Logger.manager._clear_cache()
