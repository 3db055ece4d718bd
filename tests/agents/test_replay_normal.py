"""Which differences between two runs of a command count, and which do not."""

from __future__ import annotations

import time

import pytest

from contextrl.agents.replay_normal import Match, compare, first_difference, normalise


@pytest.mark.parametrize(
    ("recorded", "repeated"),
    [
        ("===== 3 passed in 0.12s =====", "===== 3 passed in 1.04s ====="),
        ("3 passed in 61.20s (0:01:01)", "3 passed in 59.99s"),
        ("Ran 4 tests in 0.001s", "Ran 4 tests in 0.013s"),
        ("real\t0m0.012s\nuser\t0m0.001s", "real\t0m1.502s\nuser\t0m0.100s"),
        ("10 loops, best of 5: 145 nsec per loop", "10 loops, best of 5: 1.2 usec per loop"),
        ("<object object at 0x7f3a1c0d4e10>", "<object object at 0x7fa5bb00a1b0>"),
        ("Tue Nov 24 20:14:20 UTC 2026", "Wed Nov 25 09:01:00 UTC 2026"),
        ("-rw-r--r-- 1 a a 5 Nov 24 20:14 x", "-rw-r--r-- 1 a a 5 Dec  4 08:14 x"),
        ("2026-11-24T20:14:20Z up", "2026-11-25T20:14:21Z up"),
        ("/tmp/tmpab12_x9/out.txt", "/tmp/tmpzz88qq1/out.txt"),
        ("/tmp/tmp.Zq1X2c3V4b", "/tmp/tmp.AAAAbbbb11"),
        ("/tmp/pytest-of-agent/pytest-0/test_a0/f", "/tmp/pytest-of-agent/pytest-3/test_a0/f"),
        ("{'a', 'b', 'c'}", "{'c', 'a', 'b'}"),
        ("1795552243.1896975", "1795552337.3164482"),
        ("Linux 70ed58507446 6.1", "Linux 8a66b94fc52d 6.1"),
        ("= 3 passed in 0.12s ==", "= 3 passed in 10.12s ="),
        ("[1] 4711", "[1] 88"),
        ("bash: line 118: submit: command not found", "bash: line 67: submit: command not found"),
        (
            "bash: eval: line 117: syntax error near unexpected token `('",
            "bash: eval: line 66: syntax error near unexpected token `('",
        ),
        ("PID: 1234 killed", "PID: 99 killed"),
        ("[main 1a2b3c4] fix", "[main 99aabb1] fix"),
        ("commit 1a2b3c4d5e6f", "commit aabbccddeeff"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("spaces  \nend", "spaces\nend"),
        (
            "assert <test_dicttoo...x7f000a18bed0> == 1",
            "assert <test_dicttoo...x7f1e9b57f390> == 1",
        ),
        (
            "slowest 2 durations\n0.02s call     t.py::test_a\n0.01s setup    t.py::test_b\n"
            "1 passed",
            "slowest 2 durations\n0.03s call     t.py::test_b\n\n"
            "(1 durations < 0.005s hidden.  Use -vv to show these durations.)\n1 passed",
        ),
        (
            "20 loops, best of 5: 1 usec per loop\n:0: UserWarning: The test results are likely "
            "unreliable. The worst time (9 usec) was more than four times slower.\n",
            "20 loops, best of 5: 2 usec per loop\n",
        ),
        (
            "root           1  0.8  0.0   1020   696 ?        Ss   02:17   0:00 sleep infinity",
            "root          17  1.1  0.1   1024   700 ?        S    03:17   0:01 sleep infinity",
        ),
    ],
)
def test_what_two_honest_runs_differ_in_does_not_count(recorded, repeated):
    assert compare(recorded, repeated, command="x") is Match.NORMALISED


@pytest.mark.parametrize(
    ("recorded", "repeated"),
    [
        ("3 passed in 0.12s", "2 passed in 0.12s"),
        ("assert 1 == 2", "assert 1 == 3"),
        ("toolz/itertoolz.py:10: x", "toolz/itertoolz.py:11: x"),
        ("version 1.2.3", "version 1.2.4"),
        ("run.sh: line 3: x: command not found", "run.sh: line 4: x: command not found"),
        ("bash: line 3: x: command not found", "bash: line 3: y: command not found"),
        ("0x10", "0x20"),
        ("/tmp/answer.py", "/tmp/other.py"),
        ("total 4711", "total 88"),
        ("{'a': 1, 'b': 2}", "{'b': 2, 'a': 1}"),
        ("{'a', 'b'}", "{'a', 'd'}"),
        ("a\nb", "a"),
        ("b\na", "a\nb"),
        ("FAILED t.py::test_a\n0.02s call t.py::test_a", "FAILED t.py::test_b"),
        (
            "root           1  0.8  0.0   1020   696 ?        Ss   02:17   0:00 sleep infinity",
            "root           1  0.8  0.0   1020   696 ?        Ss   02:17   0:00 nc -l 80",
        ),
    ],
)
def test_what_says_something_about_the_code_counts(recorded, repeated):
    assert compare(recorded, repeated, command="x") is Match.NONE
    assert first_difference(recorded, repeated) != ("", "")


def test_lines_of_a_walk_may_come_in_another_order_unless_the_command_sorts():
    for command in ("find . -name '*.py'", "cd a && grep -rn x .", "rg x | head", "ls -U"):
        assert compare("a\nb", "b\na", command=command) is Match.REORDERED
    for command in ("find . | sort", "cat list", "ls -l", "grep x list"):
        assert compare("a\nb", "b\na", command=command) is Match.NONE
    assert compare("a\nb", "b\nb", command="find .") is Match.NONE


def test_what_grep_says_on_stderr_may_come_in_the_middle_of_the_rest():
    one = "a.py:1: def f\nb.py:2: def g\ngrep: c.pyc: binary file matches"
    other = "grep: a.py:1: def f\nc.pyc: binary file matches\nb.py:2: def g"
    assert compare(one, other, command="grep -rn def . | head -60") is Match.REORDERED
    assert compare(one, other, command="cat list") is Match.NONE
    assert compare(one, one.replace("b.py", "d.py"), command="grep -rn def .") is Match.NONE


def test_ids_of_commits_do_not_count_where_git_lists_them_one_a_line():
    one, other = "1a2b3c4 fix\n99aabb1 start", "5a2b3c4 fix\n99aabb1 start"
    for command in ("git log --oneline | head -5", "cd x && git --no-pager log -3 --oneline"):
        assert compare(one, other, command=command) is Match.NORMALISED
        assert compare(one, other.replace("fix", "break"), command=command) is Match.NONE
    assert compare(one, other, command="cat hashes") is Match.NONE


def test_a_cut_that_a_longer_duration_moved_does_not_count():
    assert compare("one\nin 0.12s, lon\n(cut)", "one\nin 0.1s, longer\n(cut)", command="x") is (
        Match.NORMALISED
    )
    assert compare("one\ntwo\n(cut)", "ore\ntwo\n(cut)", command="x") is Match.NONE
    assert compare("one\ntwo\n(cut)", "one\ntwo", command="x") is Match.NONE


def test_normalising_twice_is_normalising_once():
    text = "in 0.1s 0x7f3a1c0d4e10 /tmp/tmpab12_x9 [1] 4711 Tue Nov 24 20:14:20 UTC 2026 pid=3"
    assert normalise(normalise(text)) == normalise(text)


@pytest.mark.parametrize(
    "piece",
    [
        "=",
        "{a, ",
        "a, ",
        "1",
        "1 ",
        "[1] ",
        "/tmp/tmp",
        "Nov ",
        "Nov 1 ",
        "- ",
        "grep -a ",
        "line ",
        "\x1b[",
        "0x",
        "\t",
        "12:12:",
        "1m",
        "= <DURATION> ",
        "[main ",
        "2026-11-24",
        "-a",
        "(cut)",
        "...x",
        "0.1s call ",
        "<DURATION> call ",
        "(1 durations < ",
        ":0: UserWarning: The test results are likely unreliable. ",
        "root 1 0.0 0.0 1 1 ",
    ],
)
def test_hostile_output_costs_time_in_proportion_to_its_length(piece):
    text = piece * (200_000 // len(piece))
    began = time.process_time()
    compare(text, text + "x", command=text[:10_000])
    assert time.process_time() - began < 5.0
