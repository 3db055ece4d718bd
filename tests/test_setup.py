"""`scripts/setup.sh` with a stand-in interpreter: what it does, says and refuses, offline."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Makes environments that hold only itself, and "installs" by writing down what it was asked for.
# `$FAKE/fail` and `$FAKE/hang` name the word of the request that fails or never ends.
INTERPRETER = f"""#!/bin/bash
case "$1 $2" in
    "-m venv")
        mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && echo "venv" >>"$FAKE/done" ;;
    "-m pip")
        if [[ -f $FAKE/hang && "$*" == *$(<"$FAKE/hang")* ]]; then
            touch "$FAKE/hanging" && exec sleep 60
        fi
        if [[ -f $FAKE/fail && "$*" == *$(<"$FAKE/fail")* ]]; then
            echo "no matching distribution" && exit 1
        fi
        echo "$*" >>"$FAKE/done" ;;
    "-m compileall") exit 0 ;;
    "- "*)
        [[ -f $FAKE/engine ]] && exit 0
        echo "connection refused" && exit 1 ;;
    *"urllib"*) exit 1 ;;
    *) exec {sys.executable} "$@" ;;
esac
"""
OLD_INTERPRETER = "#!/bin/sh\n[ $1 = --version ] && echo Python 3.9.2 && exit 0\nexit 1\n"


@dataclass
class Machine:
    """A copy of what setup.sh reads, with its own PATH in front."""

    tree: Path
    fake: Path
    bin: Path
    environment: dict[str, str] = field(default_factory=dict)

    def start(self, *args: str) -> subprocess.Popen[str]:
        environment = {
            "PATH": f"{self.bin}:/usr/bin:/bin",
            "FAKE": str(self.fake),
            "CONTEXTRL_PYTHON": str(self.bin / "python3"),
            "CONTEXTRL_INSTALL": "0",
            **self.environment,
        }
        return subprocess.Popen(
            ["/bin/bash", "scripts/setup.sh", *args],
            cwd=self.tree,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def setup(self, *args: str) -> tuple[int, str]:
        """Exit code and what was said; stdout stays empty for whoever calls this in a script."""
        process = self.start(*args)
        out, err = process.communicate(timeout=60)
        assert out == ""
        return process.returncode, err

    def done(self) -> list[str]:
        """What was asked of the interpreter since the last time."""
        record = self.fake / "done"
        lines = record.read_text().splitlines() if record.exists() else []
        record.unlink(missing_ok=True)
        return lines

    def command(self, name: str, script: str) -> None:
        (self.bin / name).write_text(script)
        (self.bin / name).chmod(0o755)


@pytest.fixture
def machine(tmp_path) -> Machine:
    tree, fake, bin_ = tmp_path / "tree", tmp_path / "fake", tmp_path / "bin"
    fake.mkdir()
    bin_.mkdir()
    shutil.copytree(ROOT / "requirements", tree / "requirements")
    (tree / "scripts").mkdir()
    for path in (*(ROOT / "scripts").glob("setup*.sh"), ROOT / "pyproject.toml"):
        shutil.copy(path, tree / path.relative_to(ROOT))
    machine = Machine(tree, fake, bin_)
    machine.command("python3", INTERPRETER)
    for name in ("apt-get", "dockerd", "nvidia-smi", "systemctl"):  # never this machine's own
        machine.command(name, f"#!/bin/sh\necho {name} $* >>$FAKE/asked; exit 1\n")
    machine.command("sudo", '#!/bin/sh\nshift\nexec "$@"\n')
    return machine


def test_the_first_run_installs_from_the_constraints_and_the_second_does_nothing(machine):
    code, said = machine.setup()
    assert code == 0, said
    venv, tools, package = machine.done()
    constraints = machine.tree / "requirements/constraints-cpu.txt"
    assert venv == "venv"
    assert tools.endswith(f"install -c {constraints} pip setuptools wheel")
    assert package.endswith(
        f"--no-build-isolation --no-compile -c {constraints} -e {machine.tree}[train,dev]"
    )

    code, said = machine.setup()
    assert (code, said) == (0, "setup: .venv is complete (cpu set)\n")
    assert machine.done() == []


@pytest.mark.parametrize("file", ["requirements/constraints-cpu.txt", "pyproject.toml"])
def test_a_changed_pin_installs_again_into_the_same_environment(machine, file):
    machine.setup()
    machine.done()
    with (machine.tree / file).open("a") as pins:
        pins.write("# moved\n")
    assert machine.setup()[0] == 0
    assert "venv" not in (asked := machine.done())
    assert len(asked) == 2


def test_a_gpu_is_noticed_and_the_choice_of_set_is_kept(machine):
    machine.command("nvidia-smi", "#!/bin/sh\necho 'GPU 0: NVIDIA H100'\n")
    assert machine.setup()[0] == 0
    _, tools, package = machine.done()
    assert "constraints-gpu.txt" in tools
    assert package.endswith("[train,dev,gpu]")
    assert machine.setup("--cpu")[0] == 0
    assert "constraints-cpu.txt" in machine.done()[1]
    assert machine.setup() == (0, "setup: .venv is complete (cpu set)\n")


def test_a_moved_tree_gets_a_new_environment(machine, tmp_path):
    machine.setup()
    machine.done()
    machine.tree = machine.tree.rename(tmp_path / "elsewhere")
    assert machine.setup()[0] == 0
    assert machine.done()[0] == "venv"


def test_a_failed_installation_is_said_and_never_taken_for_complete(machine):
    (machine.fake / "fail").write_text("no-build-isolation")
    code, said = machine.setup()
    assert code == 1
    assert "no matching distribution" in said
    assert "the whole output: " in said
    machine.done()
    (machine.fake / "fail").unlink()
    assert machine.setup()[0] == 0
    assert machine.done()[0] == "venv"  # from the start, not on top of the ruins


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_update_is_never_taken_for_complete(machine, how):
    machine.setup()
    with (machine.tree / "pyproject.toml").open("a") as pins:
        pins.write("# moved\n")
    (machine.fake / "hang").write_text("no-build-isolation")
    process = machine.start()
    for _ in range(300):
        if (machine.fake / "hanging").exists():
            break
        time.sleep(0.02)
    os.killpg(process.pid, how)
    process.communicate(timeout=10)
    assert process.returncode != 0
    (machine.fake / "hang").unlink()
    machine.done()
    assert machine.setup()[0] == 0
    assert machine.done()[0] == "venv"


def test_an_environment_that_is_not_ours_is_left_alone(machine):
    (machine.tree / ".venv").mkdir()
    (machine.tree / ".venv/precious").touch()
    code, said = machine.setup()
    assert code == 1
    assert one_line(said) == (
        f"expected no .venv or one made by this script, found another;"
        f" move {machine.tree}/.venv away"
    )
    assert (machine.tree / ".venv/precious").exists()


def test_an_unsupported_python_is_one_line(machine):
    machine.command("python3", OLD_INTERPRETER)
    code, said = machine.setup()
    assert code == 1
    assert one_line(said) == (
        "expected CONTEXTRL_PYTHON to be Python 3.11 or 3.12, found: Python 3.9.2;"
        " point it at another one"
    )
    assert not (machine.tree / ".venv").exists()


def test_a_python_that_is_not_there_is_one_line(machine):
    machine.environment["CONTEXTRL_PYTHON"] = "/nowhere/python3"
    code, said = machine.setup()
    assert code == 1
    assert one_line(said) == (
        "expected CONTEXTRL_PYTHON to be Python 3.11 or 3.12, found: no /nowhere/python3;"
        " point it at another one"
    )


def test_without_an_interpreter_named_the_path_is_searched(machine):
    machine.command("python3.12", INTERPRETER)
    machine.command("python3", OLD_INTERPRETER)
    machine.command("python3.11", OLD_INTERPRETER)
    machine.environment["CONTEXTRL_PYTHON"] = ""
    assert machine.setup()[0] == 0
    machine.command("python3.12", OLD_INTERPRETER)
    shutil.rmtree(machine.tree / ".venv")
    code, said = machine.setup()
    assert code == 1
    assert one_line(said).startswith(
        "expected Python 3.11 or 3.12 on PATH, found: Python 3.9.2; install one"
    )


def test_a_full_disk_is_one_line_before_anything_is_written(machine):
    machine.command("df", "#!/bin/sh\necho header\necho /dev/vda 9 9 5242880 9% /\n")
    code, said = machine.setup()
    assert code == 1
    assert one_line(said) == f"expected 8 GB free under {machine.tree}, found 5 GB; free some space"
    assert not (machine.tree / ".venv").exists()


def test_torch_comes_from_the_index_that_was_named(machine):
    machine.environment["CONTEXTRL_TORCH_INDEX"] = "https://index.example/cpu"
    assert machine.setup()[0] == 0
    torch = machine.done()[2]
    assert "--no-deps --index-url https://index.example/cpu torch==" in torch
    (machine.fake / "fail").write_text("index.example")
    shutil.rmtree(machine.tree / ".venv")
    code, said = machine.setup()
    assert code == 1
    assert "found a failure; try none or auto" in said.splitlines()[-1]


def test_docker_is_said_to_answer(machine):
    (machine.fake / "engine").touch()
    code, said = machine.setup("--docker")
    assert code == 0
    assert said.splitlines()[-1].startswith(
        ("setup: Docker engine answers", "setup: no mmdebstrap")
    )


def test_without_docker_and_the_right_to_start_it_stops_in_one_line(machine):
    machine.setup()
    code, said = machine.setup("--docker")
    assert code == 1
    assert said.splitlines()[1:] == [
        "setup: expected a Docker engine, found none that answers (connection refused) and no right"
        " to start one; start it (Debian: apt-get install docker.io), or run as root"
    ]


def test_the_engine_is_started_when_we_may(machine):
    machine.environment["CONTEXTRL_INSTALL"] = "1"
    for name in ("dockerd", "systemctl"):  # whichever this machine would use
        machine.command(name, "#!/bin/sh\nsleep 0.3; touch $FAKE/engine; sleep 1\n")
    code, said = machine.setup("--docker")
    assert code == 0
    assert "setup: Docker engine answers, started just now\n" in said


def test_an_engine_that_dies_is_one_line_with_its_log(machine):
    machine.environment["CONTEXTRL_INSTALL"] = "1"
    code, said = machine.setup("--docker")
    assert code == 1
    assert said.splitlines()[-1].startswith(
        "setup: expected the Docker engine to answer within 30 s of its start, found it silent;"
        f" see {machine.tree}/.cache/setup/"
    )


def test_docker_if_possible_goes_on_without(machine):
    code, said = machine.setup("--docker-if-possible")
    assert code == 0
    assert "\nsetup: going on without Docker: expected a Docker" in said


def test_tools_that_only_tests_need_are_never_what_stops_them(machine):
    some = machine.tree.parent / "some"
    some.mkdir()
    for path in Path("/usr/bin").iterdir():
        if path.name not in ("bwrap", "chromium"):
            (some / path.name).symlink_to(path)
    machine.environment["PATH"] = f"{machine.bin}:{some}"
    code, said = machine.setup("--test-tools")
    assert code == 0
    assert (
        "setup: no bubblewrap, so tests of sandboxes without Docker are skipped; run: apt" in said
    )
    assert "setup: no chromium, so tests of pages in a browser are skipped; run: apt-get" in said


def test_a_remote_engine_is_not_ours_to_start(machine):
    machine.environment |= {"DOCKER_HOST": "tcp://far:2375", "CONTEXTRL_INSTALL": "1"}
    code, said = machine.setup("--docker")
    assert code == 1
    assert "at DOCKER_HOST=tcp://far:2375; start it there" in said.splitlines()[-1]


def test_an_unknown_option_is_wrong_usage(machine):
    code, said = machine.setup("--dokcer")
    assert code == 2
    assert said.startswith("usage: ")


def test_both_constraint_files_pin_every_line():
    for name in ("cpu", "gpu"):
        lines = (ROOT / f"requirements/constraints-{name}.txt").read_text().splitlines()
        pins = [line for line in lines if not line.startswith("#")]
        assert len(pins) > 100
        assert [pin for pin in pins if not is_plain_pin(pin)] == []
        names = [pin.split("==")[0] for pin in pins]
        assert names == sorted(set(names))
        assert {"pip", "setuptools", "wheel", "torch", "verl", "pytest"} <= set(names)


def is_plain_pin(line: str) -> bool:
    """`name==1.2.3`: no URL, no local version such as +cpu, no range."""
    name, _, version = line.partition("==")
    return bool(name and version) and version.replace(".", "").isalnum() and "/" not in line


def one_line(said: str) -> str:
    (line,) = said.splitlines()
    return line.removeprefix("setup: ")
