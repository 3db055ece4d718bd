from __future__ import annotations

import gzip
import json
import time
from pathlib import Path

import pytest

from contextrl.agents.types import Message
from contextrl.pairs.edits import command_spans, edit_spans
from contextrl.pairs.errors import LeakError
from contextrl.pairs.masking import MASK, assert_no_leak, fingerprint, mask_run
from contextrl.pairs.normal import NormalText, normal, replace
from contextrl.pairs.shown_diffs import diff_spans

REAL_RUNS = Path(__file__).parents[3] / "shared/data/mini_swe_verified_trajectories.jsonl.gz"
FIXED = "    if value < low:"


def reply(command: str, thought: str = "I edit.") -> Message:
    return Message(role="assistant", content=f"{thought}\n```bash\n{command}\n```")


def seen(text: str) -> Message:
    return Message(role="user", content=text)


def masked_command(make, command: str) -> str:
    patch = make.gold("low")
    run = mask_run([reply(command)], [patch])
    assert_no_leak(patch, run.messages)
    assert run.first_edit == 0, "the command was not known as an edit"
    return run.messages[0].content


EDITS = {
    "sed line": "sed -i '6c\\    if value < low:' shapes/clamp.py",
    "sed substitution": "sed -i 's/value <= low/value < low/' shapes/clamp.py",
    "sed double quotes": 'sed -i "6s/<=/</" shapes/clamp.py && git status',
    "sed expressions": "sed -i.bak -e '6d' -e '5a\\    if value < low:' shapes/clamp.py",
    "sed quoted quote": "sed -i '6c\\    if value < low:  # isn'\\''t' shapes/clamp.py",
    "sed on many": "find . -name '*.py' -exec sed -i 's/<= low/< low/' {} \\;",
    "sed to a file": "sed 's/<= low/< low/' shapes/clamp.py > x && mv x shapes/clamp.py",
    "perl": "perl -0pi -e 's/value <= low/value < low/' shapes/clamp.py",
    "awk": "awk -i inplace '{gsub(/<= low/, \"< low\")} 1' shapes/clamp.py",
    "heredoc to the file": (
        "cat > shapes/clamp.py <<'EOF'\ndef clamp(value, low, high):\n    if value < low:\nEOF"
    ),
    "heredoc before the target": "cat <<EOF > shapes/clamp.py\n    if value < low:\nEOF\nls",
    "tee": "tee shapes/clamp.py <<EOF\n    if value < low:\nEOF",
    "git apply": "git apply --whitespace=nowarn - <<'PATCH'\n{patch}PATCH",
    "patch": "cd /testbed && patch -p1 <<'EOF'\n{patch}EOF\necho done",
    "apply_patch": "apply_patch <<'EOF'\n*** Update File: x\n-    a\n+    if value < low:\nEOF",
    "patch file": "cat <<'EOF' > fix.patch\n{patch}EOF\ngit apply fix.patch",
    "python heredoc": (
        "python - <<'EOF'\np='shapes/clamp.py'\ns=open(p).read()\n"
        "s=s.replace('value <= low', 'value < low')\nopen(p,'w').write(s)\nEOF"
    ),
    "python one-liner": (
        "python3 -c \"p='shapes/clamp.py'; s=open(p).read(); "
        "open(p,'w').write(s.replace('<= low', '< low'))\""
    ),
    "str_replace": (
        "old=$(cat <<'OLD'\n    if value <= low:\nOLD\n) && new=$(cat <<'NEW'\n"
        "    if value < low:\nNEW\n) && python edit_via_str_replace shapes/clamp.py -- "
        '"$old" "$new"'
    ),
    "str_replace quoted": "python edit_via_str_replace shapes/clamp.py -- '<= low' 'v < low:'",
    "printf": "printf '%s\\n' '    if value < low:' >> shapes/clamp.py",
}


@pytest.mark.parametrize("form", EDITS)
def test_the_text_of_every_edit_form_is_masked(make, form):
    content = masked_command(make, EDITS[form].replace("{patch}", make.gold("low")))
    assert MASK in content
    assert "< low" not in content.replace("<= low", "")
    assert content.startswith("I edit.\n```bash\n")
    assert content.endswith("```")


def test_what_surrounds_an_edit_stays(make):
    content = masked_command(
        make, "cd /testbed && sed -i '6c\\    if value < low:' shapes/clamp.py && pytest -q"
    )
    assert content == (
        f"I edit.\n```bash\ncd /testbed && sed -i {MASK} shapes/clamp.py && pytest -q\n```"
    )
    old_and_new = masked_command(make, EDITS["str_replace"])
    assert f"old=$(cat <<'OLD'\n{MASK}\nOLD" in old_and_new
    assert '-- "$old" "$new"' in old_and_new


@pytest.mark.parametrize(
    "command",
    [
        "sed -n '1,20p' shapes/clamp.py",
        "grep -n 'value' shapes/clamp.py | sed -n '/def clamp(/,/^[0-9]*:$/p'",
        "cat > reproduce.py <<'EOF'\nfrom shapes.clamp import clamp\nprint(clamp(1, 1, 2))\nEOF",
        'python -c "from shapes.clamp import clamp; print(clamp(0, 0, 1))"',
        "cat shapes/clamp.py",
        "echo it works > notes.txt",
        "git diff --stat",
    ],
)
def test_looking_and_reproducing_are_evidence_and_stay(make, command):
    run = mask_run([reply(command)], [make.gold("low")])
    assert run.messages == (reply(command),)
    assert run.first_edit == len(run.messages)


def test_later_views_echoes_and_summaries_are_masked_by_line(make):
    patch = make.gold("low")
    messages = [
        seen(make.numbered(make.buggy("low"))),
        reply("sed -i '6s/<=/</' shapes/clamp.py"),
        seen(make.numbered(make.original)),
        reply("cat -n x", thought="Now it reads `if value < low:` and that is right."),
        seen("     5\tdoc\n     6\t    if  value<low:\n     7\t        return low"),
        seen('>>> print("""if value < low:\\n    return""")'),
        seen("\x1b[32m+    if\x1b[m value < low:"),
    ]
    run = mask_run(messages, [patch])
    assert run.messages[0] == messages[0]
    assert run.observed_before_editing == messages[0].content
    assert f"6:    {MASK}\n7:        return low" in run.messages[2].content
    assert run.messages[3].content.startswith(f"Now it reads `{MASK}` and that is right.")
    assert f"     6\t    {MASK}\n     7\t" in run.messages[4].content
    assert_no_leak(patch, run.messages)


def test_a_diff_goes_whole_headers_and_hashes_too(make):
    patch = make.gold("low")
    text = f"<output>\n{patch}</output>\n3 passed"
    run = mask_run([seen(text)], [patch])
    assert run.messages[0].content == f"<output>\n{MASK}\n</output>\n3 passed"
    cut = "\n".join(patch.split("\n")[:6]) + "\n... 100 lines elided ...\nrest"
    assert "@@" not in replace(cut, diff_spans(cut), MASK)
    assert "rest" in replace(cut, diff_spans(cut), MASK)
    assert diff_spans("- a list\n+ of things\n--- a rule\n") == []


def test_a_line_that_the_patch_only_extends_stays_where_it_was(make):
    before, after = "def f(a):\n    return a + first\n", "def f(a):\n    return a\n"
    patch = make.diff(before, after)
    run = mask_run([seen(make.numbered(before)), seen(make.numbered(after))], [patch])
    assert run.messages[0].content == make.numbered(before)
    assert run.messages[1].content == f"1:def f(a):\n2:    {MASK}\n"


def test_a_word_is_not_found_inside_a_longer_one():
    text = NormalText("x = returned\nreturn value2\nreturn value")
    assert [text.text[a:b] for a, b in text.find(normal("return value"))] == ["return value"]
    assert "turned" not in text


@pytest.mark.parametrize(
    "shown",
    [
        FIXED,
        "6:if value<low:",
        "THOUGHT: it must be if value < low: because",
        "'if value < low:\\n'",
        "+    if  value <   low :",
        "> if\nvalue < low:",
    ],
)
def test_a_readable_answer_is_a_leak(make, shown):
    with pytest.raises(LeakError, match="if value < low:"):
        assert_no_leak(make.gold("low"), [seen("fine"), seen(shown)])


@pytest.mark.parametrize("shown", ["    if value <= low:", "if value < lower:", "value < low", ""])
def test_other_lines_are_no_leak(make, shown):
    assert_no_leak(make.gold("low"), [seen(shown)])


def test_a_line_of_the_start_state_is_no_leak(make):
    view = make.buggy("high")
    with pytest.raises(LeakError):
        assert_no_leak(make.gold("low"), [seen(view)])
    assert_no_leak(make.gold("low"), [seen(view)], known=view)


def test_a_moved_line_and_a_trivial_one_tell_nothing(make):
    patch = make.diff("    total = a\nx\n", "x\n    total = a\nelse:\nbrand_new = 1\n")
    assert [line.text for line in fingerprint(patch).lines] == ["brand_new = 1"]
    # with nothing longer to go by, short lines count
    tiny = make.diff("i = 1\n", "i = 2\n")
    with pytest.raises(LeakError):
        assert_no_leak(tiny, [seen("i = 2")])


SHUFFLED = """def is_json(kind):
    return False
    if kind == "json":
        return True
    if not kind:
        return False
    kind = kind.lower()
"""
RIGHT = """def is_json(kind):
    if not kind:
        return False
    kind = kind.lower()
    if kind == "json":
        return True
    return False
"""


def test_the_order_that_a_patch_restores_is_shown_before_the_edit_only(make):
    messages = [
        seen(make.numbered(SHUFFLED)),
        reply("git apply - <<'PATCH'\nx\nPATCH"),
        seen(make.numbered(RIGHT)),
        seen("assert is_json(None) is False"),
    ]
    run = mask_run(messages, [make.diff(SHUFFLED, RIGHT)])
    assert run.messages[0] == messages[0]
    assert run.messages[3] == messages[3]
    after = run.messages[2].content
    assert after == (
        f"1:def is_json(kind):\n2:    if not kind:\n3:        {MASK}\n4:    kind = kind.lower()\n"
        f"5:    {MASK}\n6:        {MASK}\n7:    {MASK}\n"
    )


def test_a_line_that_comes_back_where_it_was_is_not_moved(make):
    # git says so of the last line of a file that had no line end
    patch = "\n".join(
        ("--- a/x.py", "+++ b/x.py", "@@ -1,2 +1,3 @@", " def f(a):", "-    return first(a)",
         "\\ No newline at end of file", "+    a = list(a)", "+    return first(a)", "")
    )  # fmt: skip
    view = "1:def f(a):\n2:    a = list(a)\n3:    return first(a)\n"
    run = mask_run([reply("sed -i '2i\\    a = list(a)' x.py"), seen(view)], [patch])
    assert run.messages[1].content == f"1:def f(a):\n2:    {MASK}\n3:    return first(a)\n"


def test_fences_bound_the_commands():
    text = "It isn't.\n```bash\na\n```\nand\n```\nb\n"
    assert [text[a:b] for a, b in command_spans(text)] == ["a\n", "b\n"]
    assert command_spans("no fence") == [(0, 8)]


HOSTILE = {
    "quotes": "'\"" * 150_000,
    "backslashes": "\\" * 500_000,
    "heredocs": "cat <<A <<B <<C\n" * 30_000,
    "open heredoc": "sed -i <<EOF\n" + "x\n" * 200_000,
    "fences": "```\n" * 125_000,
    "numbers": "1-" * 200_000,
    "repeats": "if value < lo" * 40_000,
    "hunks": "@@ -1,9 +1,9 @@\n-a\n" * 25_000,
    "colours": "\x1b[" * 200_000,
    "redirects": ">&" * 200_000,
    "found": "if value < low:" * 30_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_half_a_megabyte_of_anything_takes_a_moment(make, name):
    text = HOSTILE[name]
    started = time.process_time()
    run = mask_run([Message(role="assistant", content=text), seen(text)], [make.gold("low")])
    assert_no_leak(make.gold("low"), run.messages)
    assert time.process_time() - started < 5


def test_normal_form_ignores_what_quoting_adds():
    assert normal("  x = 'a'\\n") == normal('x="a"') == "x=a"
    spans = edit_spans("sed -i 's/a/b/' 'x y.py'", ["x y.py"])
    assert replace("sed -i 's/a/b/' 'x y.py'", spans, MASK) == f"sed -i {MASK} 'x y.py'"


@pytest.mark.skipif(not REAL_RUNS.exists(), reason="the sample of real runs is not here")
def test_real_runs_keep_no_line_of_their_patch():
    masked, edits, kept_views = 0, 0, 0
    with gzip.open(REAL_RUNS, "rt", encoding="utf-8") as stream:
        for _, line in zip(range(60), stream, strict=False):
            row = json.loads(line)
            patch = row["info"]["submission"]
            messages = [
                Message(
                    role="assistant" if m["role"] == "assistant" else "user",
                    content=m["content"] if isinstance(m["content"], str) else "",
                )
                for m in row["messages"][2:]
            ]
            if not patch:
                continue
            run = mask_run(messages, [patch])
            assert_no_leak(patch, run.messages)
            masked += 1
            edits += run.first_edit < len(messages)
            before = sum(len(m.content) for m in messages)
            kept_views += sum(len(m.content) for m in run.messages) > 0.5 * before
    assert masked >= 50
    assert edits >= 0.95 * masked
    assert kept_views >= 0.95 * masked
