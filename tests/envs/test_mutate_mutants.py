"""Mutants of small sources: one changed line each, no two alike, and patches that undo them."""

from __future__ import annotations

import ast
import subprocess
from collections import Counter

from contextrl.envs.mutants import (
    bug_patch,
    fix_patch,
    functions_of,
    propose,
    spread,
    with_line,
)

SOURCE = """import os

def take(n, seq):
    out = []
    for item in seq:
        if len(out) < n:
            out.append(item)
    return out

@os.wraps
def quoted(a, b=1):
    return a + 'x' + b

class Box:
    def get(self):
        return 1

def get(a):
    return a + 1

def long(a):
    a = a + 1
    a = a + 2
    a = a + 3
    a = a + 4
    a = a + 5
    a = a + 6
    return a
"""
SOURCES = {"pkg/m.py": SOURCE}


def mutants():
    return propose("pkg/m.py", SOURCE, functions_of(SOURCES, max_lines=6)).mutants


def test_only_short_functions_with_unambiguous_names_take_part():
    assert [each.name for each in functions_of(SOURCES, max_lines=6)] == ["take", "quoted"]
    assert [each.name for each in functions_of(SOURCES, max_lines=8)] == ["take", "quoted", "long"]


def test_a_name_in_two_files_is_ambiguous():
    sources = {"a.py": "def f(x):\n    return x\n", "b.py": "def f(x):\n    return -x\n"}
    assert functions_of(sources, max_lines=9) == ()


def test_each_mutant_changes_one_line_and_its_meaning():
    original = ast.dump(ast.parse(SOURCE))
    lines = SOURCE.split("\n")
    assert len(mutants()) > 20
    for mutant in mutants():
        mutated = with_line(SOURCE, mutant.line, mutant.after)
        assert mutant.before == lines[mutant.line - 1] != mutant.after
        assert len(mutated.split("\n")) == len(lines)
        assert ast.dump(ast.parse(mutated)) != original


def test_no_two_mutants_mean_the_same_and_keys_tell_them_apart():
    shapes = Counter(
        ast.dump(ast.parse(with_line(SOURCE, each.line, each.after))) for each in mutants()
    )
    assert set(shapes.values()) == {1}
    assert len({each.key for each in mutants()}) == len(mutants())


def test_lines_that_do_not_fit_between_single_quotes_are_left_out():
    assert all("'" not in each.before + each.after for each in mutants())
    proposals = propose("pkg/m.py", SOURCE, functions_of(SOURCES, max_lines=6))
    assert proposals.dropped["not-plain"] > 0


def test_proposals_are_the_same_every_time():
    assert mutants() == mutants()


def test_the_fix_restores_the_original_bytes(tmp_path):
    path = tmp_path / "pkg" / "m.py"
    path.parent.mkdir()
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    for mutant in mutants()[::5]:
        path.write_text(SOURCE, encoding="utf-8")
        for patch, expected in (
            (bug_patch(mutant, SOURCE), with_line(SOURCE, mutant.line, mutant.after)),
            (fix_patch(mutant, SOURCE), SOURCE),
        ):
            subprocess.run(["git", "apply", "-"], input=patch.encode(), cwd=tmp_path, check=True)
            assert path.read_text(encoding="utf-8") == expected


def test_a_prefix_of_the_spread_covers_many_lines_and_operators():
    of_take = [each for each in mutants() if each.function == "take"]
    first = spread(of_take, seed=0)[:5]
    assert len({each.line for each in first}) == 5
    assert len({each.operator for each in first}) >= 4


def test_the_spread_keeps_all_and_depends_on_the_seed_alone():
    of_take = [each for each in mutants() if each.function == "take"]
    assert sorted(each.key for each in spread(of_take, seed=0)) == sorted(
        each.key for each in of_take
    )
    assert spread(of_take, seed=0) == spread(of_take, seed=0) != spread(of_take, seed=1)
