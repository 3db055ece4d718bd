"""What every sandbox promises. One suite; each backend is a parameter."""

from __future__ import annotations

import subprocess
import time
import tracemalloc

import pytest

from contextrl.envs.errors import SandboxError, TaskSetupError
from contextrl.envs.fake import FakeProvider
from contextrl.envs.types import Limit

BACKENDS = [
    "fake",
    *(pytest.param(name, marks=pytest.mark.docker) for name in ("docker", "namespace", "remote")),
]


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request):
    """A provider whose repository is the tiny package, and the image that its tasks name."""
    if request.param != "fake":
        image = request.getfixturevalue("tiny_image")
        return request.getfixturevalue(f"{request.param}_provider"), image
    return FakeProvider(request.getfixturevalue("tiny_files"), max_output_bytes=64 * 1024), "none:1"


@pytest.fixture
def task(backend, tiny_task):
    return tiny_task.model_copy(update={"image": backend[1]})


@pytest.fixture
def sandbox(backend, task):
    with backend[0].start(task) as sandbox:
        yield sandbox


def run(sandbox, command, timeout_s=20.0, stdin=b""):
    return sandbox.exec(command, timeout_s=timeout_s, stdin=stdin)


def test_starts_in_the_workdir_with_the_setup_patch_applied(sandbox):
    assert run(sandbox, "pwd").output == "/testbed\n"
    assert "return a - b" in run(sandbox, "cat tiny.py").output


def test_history_does_not_reveal_the_fix(sandbox):
    assert run(sandbox, "git log --all --format=%s").output == "Initial commit\n"
    assert run(sandbox, "git status --porcelain").output == ""
    assert run(sandbox, "git show HEAD~1").exit_code != 0
    every_object = "git cat-file --batch-all-objects --batch --unordered"
    assert "return a + b" not in run(sandbox, every_object).output


def test_directory_environment_variables_and_functions_survive(sandbox):
    run(sandbox, "cd tests; export A='1 2'; b=3; greet() { echo hi $1; }")
    assert run(sandbox, 'pwd; echo "$A $b"; greet you').output == "/testbed/tests\n1 2 3\nhi you\n"


def test_exit_codes_and_both_streams(sandbox):
    result = run(sandbox, "echo out; echo err >&2; false")
    assert (result.output, result.exit_code, result.timed_out) == ("out\nerr\n", 1, False)
    assert run(sandbox, "no-such-command").exit_code == 127
    assert run(sandbox, "echo 'never closed").exit_code == 2


def test_output_is_returned_as_it_is(sandbox):
    assert run(sandbox, "printf 'no newline'").output == "no newline"
    assert run(sandbox, r"printf 'a\0b\xff\303\251'").output == "a\0b\ufffd\u00e9"
    assert run(sandbox, "cat <<'EOF'\nit's \"$HOME\" `x`\nEOF").output == 'it\'s "$HOME" `x`\n'


def test_commands_read_from_nothing(sandbox):
    assert run(sandbox, "cat; read line; echo $?").output == "1\n"


def test_a_command_can_be_given_what_it_reads(sandbox):
    given = b"$(echo no) 'quotes' \\ \xc3\xa9\nexit 3\n"
    run(sandbox, "cd tests; state=kept")
    assert run(sandbox, "cat; exit 7", stdin=given).output.encode() == given
    assert run(sandbox, "exit 7", stdin=given).exit_code == 7
    assert run(sandbox, "head -c1", stdin=b"echo no\n" * 12_000).output == "e"
    assert run(sandbox, "sleep 100", stdin=given, timeout_s=0.3).timed_out
    assert run(sandbox, "pwd").output == "/testbed/tests\n"


def test_time_limit_kills_the_command_and_the_shell_lives_on(sandbox):
    run(sandbox, "cd tests; state=kept")
    started = time.monotonic()
    result = run(sandbox, "echo before; sleep 100 | cat", timeout_s=2.0)
    assert time.monotonic() - started < 20
    assert result.timed_out
    assert result.limit is Limit.TIME
    assert result.exit_code is None
    assert result.output.startswith("before\n")
    assert run(sandbox, "pwd; echo $state").output == "/testbed/tests\nkept\n"
    assert run(sandbox, "ps -eo args | grep -c '[s]leep 100'").output.strip() == "0"


def test_time_limit_spares_earlier_background_processes(sandbox):
    run(sandbox, "sleep 55.5 & pid=$!")
    assert run(sandbox, "sleep 100", timeout_s=0.3).timed_out
    assert run(sandbox, "kill -0 $pid && echo alive; kill $pid").output == "alive\n"


@pytest.mark.parametrize(
    "command",
    [
        "while :; do :; done",
        "while :; do sleep 0.01; done",
        "trap '' USR1 TERM; while :; do :; done",
    ],
)
def test_a_shell_that_loops_is_replaced_in_its_directory(sandbox, command):
    run(sandbox, "cd tests")
    result = run(sandbox, command, timeout_s=0.3)
    assert result.timed_out
    assert "the shell ended" in result.output
    assert run(sandbox, "pwd").output == "/testbed/tests\n"


def test_exit_keeps_directory_and_exported_variables(sandbox):
    result = run(sandbox, "cd tests; export A=1; exit 3")
    assert result.exit_code == 3
    assert "the shell ended" in result.output
    assert run(sandbox, "pwd; echo $A").output == "/testbed/tests\n1\n"


def test_errexit_does_not_lose_the_sandbox(sandbox):
    assert run(sandbox, "set -e; echo one; false; echo two").output.startswith("one\n[")
    assert run(sandbox, "false; echo three").output == "three\n"


@pytest.mark.parametrize("command", ["exec echo bye", "kill -9 $$", "sleep 66.6 & kill -9 $$"])
def test_a_shell_that_is_gone_is_replaced_in_its_directory(sandbox, command):
    run(sandbox, "cd tests")
    result = run(sandbox, command)
    assert not result.timed_out
    assert result.exit_code in {None, 0}
    assert "the shell ended" in result.output
    assert run(sandbox, "pwd").output == "/testbed/tests\n"


def test_a_background_process_does_not_block(sandbox):
    started = time.monotonic()
    assert run(sandbox, "sleep 44.4 & echo started").output == "started\n"
    assert time.monotonic() - started < 20


def test_long_output_is_cut_in_the_middle_and_says_so(sandbox):
    result = run(sandbox, "echo first; head -c 3000000 /dev/zero | tr '\\0' x; echo; echo last")
    assert result.output.startswith("first\n")
    assert result.output.endswith("\nlast\n")
    assert f"[... {result.dropped_bytes} bytes cut ...]" in result.output
    assert result.dropped_bytes == 3000000 + len("first\n\nlast\n") - 64 * 1024
    assert len(result.output) < 70_000


def test_endless_output_ends_at_the_time_limit(sandbox):
    result = run(sandbox, "yes", timeout_s=0.5)
    assert result.timed_out
    assert result.dropped_bytes > 0
    assert run(sandbox, "echo fine").output == "fine\n"


@pytest.mark.slow
def test_much_output_needs_little_memory(request, sandbox):
    if "[remote" in request.node.name:
        pytest.skip("a request carries 64 KiB: minutes, and the same code")
    size = 256 << 20
    tracemalloc.start()
    result = run(sandbox, f"yes | head -c {size}; echo last", timeout_s=120.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert result.exit_code == 0
    assert result.output.endswith("\nlast\n")
    assert result.dropped_bytes == size + len("last\n") - 64 * 1024
    assert peak < 16 * 1024 * 1024


def test_output_cannot_pass_for_the_end_of_a_command(sandbox):
    result = run(sandbox, "set; trap -p; echo 0123456789abcdef0123456789abcdef ok 0 1 1 /; exit 5")
    assert result.exit_code == 5
    assert run(sandbox, "set -v; set -x").exit_code == 0
    assert run(sandbox, "echo traced").output.endswith("traced\n")


def test_a_command_with_a_nul_byte_is_refused(sandbox):
    assert run(sandbox, "echo a\0b").exit_code == 2


def test_files_are_written_and_read_whole(sandbox):
    content = bytes(range(256)) * 2000
    sandbox.write_file("/testbed/new dir/it's.bin", content)
    assert sandbox.read_file("/testbed/new dir/it's.bin") == content
    assert run(sandbox, "wc -c < 'new dir/it'\"'\"'s.bin'").output.strip() == str(len(content))
    with pytest.raises(FileNotFoundError):
        sandbox.read_file("/testbed/none")


def test_diff_shows_every_kind_of_change_and_applies(sandbox, tmp_path):
    assert sandbox.diff() == ""
    run(sandbox, "sed -i 's/a - b/a + b/' tiny.py; printf '\\0\\1\\377' > blob; rm setup.cfg")
    run(sandbox, "mkdir -p __pycache__ .pytest_cache; touch __pycache__/x.pyc .pytest_cache/y")
    run(sandbox, "echo 'x = 1' > 'a file.py'; chmod +x 'a file.py'; ln -s tiny.py link")
    diff = sandbox.diff()
    assert "+    return a + b" in diff
    assert "deleted file mode 100644" in diff
    assert "GIT binary patch" in diff
    assert "new file mode 100755" in diff
    assert "new file mode 120000" in diff
    assert "pycache" not in diff
    assert "pytest_cache" not in diff

    run(sandbox, "git stash -qu || git stash -q")
    sandbox.write_file("/tmp/the.diff", diff.encode())
    assert run(sandbox, "git apply --check /tmp/the.diff").exit_code == 0


def test_diff_is_not_fooled_by_commits_staging_or_settings(sandbox):
    run(sandbox, "git config diff.noprefix true; git config color.ui always")
    run(sandbox, "sed -i 's/a - b/a + b/' tiny.py; git add -A; git commit -qm mine; git tag v1")
    run(sandbox, "git checkout -q --orphan other; echo more > staged; git add staged")
    diff = sandbox.diff()
    assert "--- a/tiny.py\n+++ b/tiny.py\n" in diff
    assert "+++ b/staged\n" in diff
    assert run(sandbox, "git status --porcelain").output.count("staged") == 1


def test_diff_of_text_that_is_not_utf8_is_binary(sandbox):
    run(sandbox, "printf 'caf\\351\\n' > latin.txt")
    assert "GIT binary patch" in sandbox.diff()


def test_diff_of_a_destroyed_repository_is_empty(sandbox):
    run(sandbox, "rm -rf .git")
    assert sandbox.diff() == ""


def test_same_start_state_has_the_same_commit(backend, task):
    with backend[0].start(task) as one, backend[0].start(task) as two:
        command = "git rev-parse HEAD"
        assert run(one, command).output == run(two, command).output


def test_shell_setup_is_sourced_by_every_shell(backend, task):
    setup = "export TOOL=ready; tool() { echo $TOOL; }"
    with backend[0].start(task.model_copy(update={"shell_setup": setup})) as sandbox:
        assert run(sandbox, "tool").output == "ready\n"
        run(sandbox, "exit")
        assert run(sandbox, "tool").output == "ready\n"


def test_a_setup_patch_that_does_not_apply_is_a_setup_error(backend, task):
    patch = task.setup_patch.replace("return a + b", "return something else")
    with pytest.raises(TaskSetupError, match="setup_patch does not apply"):
        backend[0].start(task.model_copy(update={"setup_patch": patch}))


def test_without_a_setup_patch_the_history_is_kept(backend, task):
    with backend[0].start(task.model_copy(update={"setup_patch": ""})) as sandbox:
        assert "return a + b" in run(sandbox, "cat tiny.py").output
        assert run(sandbox, "git log --oneline | wc -l").output.strip() == "1"


def test_closing_twice_is_harmless_and_a_closed_sandbox_says_so(backend, task):
    sandbox = backend[0].start(task)
    sandbox.close()
    sandbox.close()
    with pytest.raises(SandboxError, match="closed"):
        sandbox.exec("true", timeout_s=1)


def test_nothing_of_a_fake_is_left_running(tiny_task):
    with FakeProvider().start(tiny_task.model_copy(update={"setup_patch": ""})) as sandbox:
        run(sandbox, "sleep 33.321 &")
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    assert "sleep 33.321" not in listed.stdout


def test_output_can_be_heard_while_the_command_runs(sandbox):
    heard = []
    sandbox.on_output = lambda content: heard.append((content, time.monotonic()))
    result = run(sandbox, "echo first; sleep 1; echo second")
    assert b"".join(content for content, _ in heard).decode() == result.output == "first\nsecond\n"
    assert heard[-1][1] - heard[0][1] > 0.5
