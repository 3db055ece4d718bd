from __future__ import annotations

import random

import pytest

from contextrl.pairs.diffs import (
    MAX_PATCH_BYTES,
    FunctionSource,
    patch_lines,
    touched_files,
    touched_regions,
)
from contextrl.pairs.errors import PatchError

METHOD = """\
diff --git a/pkg/m.py b/pkg/m.py
--- a/pkg/m.py
+++ b/pkg/m.py
@@ -10,6 +10,6 @@ class Box:
     size = 1

     def grow(self, by):
-        self.size -= by
+        self.size += by
         return self.size

@@ -30,3 +30,3 @@ def far():
     a = 1
-    b = 2
+    b = 3
     c = 4
"""


def names(patch, **kwargs):
    return {(r.function, r.source) for r in touched_regions(patch, **kwargs)}


def test_lines_come_by_role_and_without_prefixes():
    lines = patch_lines(METHOD)
    assert lines.removed == ("        self.size -= by", "    b = 2")
    assert lines.added == ("        self.size += by", "    b = 3")
    assert "    size = 1" in lines.context
    assert touched_files(METHOD) == ("pkg/m.py",)


def test_names_come_from_the_hunk_then_from_its_header():
    assert names(METHOD) == {
        ("Box.grow", FunctionSource.HUNK),
        ("far", FunctionSource.HUNK_HEADER),
    }


def test_a_definition_that_ended_does_not_hold_the_change():
    patch = METHOD.replace("    a = 1\n-    b = 2\n+    b = 3\n", " a = 1\n-b = 2\n+b = 3\n")
    assert ("", FunctionSource.UNKNOWN) in names(patch)


@pytest.mark.parametrize("side", ["before", "after"])
def test_the_syntax_tree_of_either_side_is_preferred(make, side):
    source = make.buggy("middle") if side == "before" else make.original
    patch = make.gold("middle")
    assert names(patch, read_source=lambda path: source) == {("clamp", FunctionSource.SYNTAX_TREE)}


@pytest.mark.parametrize("source", ["def broken(:\n", "x = 1\n", "\0", "(" * 5000, None])
def test_a_source_that_does_not_fit_falls_back(make, source):
    found = names(make.gold("low"), read_source=lambda path: source)
    assert found == {("clamp", FunctionSource.HUNK)}


def test_the_innermost_definition_wins_with_its_decorators(make):
    source = "class A:\n    @wrap(1)\n    def f(self):\n        def g():\n            return 1\n"
    after = source.replace("return 1", "return 2")
    assert names(make.diff(source, after), read_source=lambda path: source) == {
        ("A.f.g", FunctionSource.SYNTAX_TREE)
    }
    after = source.replace("wrap(1)", "wrap(2)")
    assert names(make.diff(source, after), read_source=lambda path: source) == {
        ("A.f", FunctionSource.SYNTAX_TREE)
    }


def test_a_view_names_what_the_hunk_cannot(make):
    view = make.numbered(make.buggy("high"))
    assert names(make.gold("high")) == {("", FunctionSource.UNKNOWN)}
    assert names(make.gold("high"), views=[view]) == {("clamp", FunctionSource.VIEW)}
    assert names(make.gold("high"), views=["nothing"]) == {("", FunctionSource.UNKNOWN)}


def test_an_added_file_and_a_deleted_one_are_read(make):
    added = "--- /dev/null\n+++ b/new.py\n@@ -0,0 +1,2 @@\n+def f():\n+    return 1\n"
    assert names(added) == {("f", FunctionSource.HUNK)}
    deleted = "--- a/old.py\n+++ /dev/null\n@@ -1,2 +0,0 @@\n-def f():\n-    return 1\n"
    assert touched_files(deleted) == ("old.py",)


@pytest.mark.parametrize(
    "patch",
    [
        "",
        "hello",
        "--- a/x\n+++ b/x\n",
        "--- a/x\n+++ b/x\n@@ -1,5 +1,5 @@\n-a\n",
        "@@ -1 +1 @@\n-a\n+b\n",
        "--- a/../../etc/passwd\n+++ b/../../etc/passwd\n@@ -1 +1 @@\n-a\n+b\n",
        "--- /etc/passwd\n+++ /etc/passwd\n@@ -1 +1 @@\n-a\n+b\n",
        "diff --git a/x b/x\nBinary files a/x and b/x differ\n",
        "+" * (MAX_PATCH_BYTES + 1),
    ],
)
def test_hostile_patches_are_one_named_error(patch):
    with pytest.raises(PatchError):
        touched_regions(patch)


def test_a_damaged_patch_is_read_or_refused_never_a_crash(make):
    rng = random.Random(0)
    for _ in range(300):
        text = list(METHOD)
        for _ in range(rng.randrange(1, 6)):
            text[rng.randrange(len(text))] = rng.choice("@+- \n,0a/\\\x00\x1b\ufffd")
        try:
            touched_regions("".join(text), lambda path: "def f():\n    pass\n")
        except PatchError:
            continue
