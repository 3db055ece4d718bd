from __future__ import annotations

import pytest

from contextrl.agents.errors import FormatError
from contextrl.agents.parsing import parse_command


def block(body: str, label: str = "bash") -> str:
    return f"THOUGHT: so.\n\n```{label}\n{body}\n```\n"


@pytest.mark.parametrize("label", ["bash", "sh", "shell", "Bash"])
def test_one_block_is_the_command(label):
    assert parse_command(block("ls -la", label)) == "ls -la"


def test_windows_line_ends_of_fences_do_not_matter_but_those_of_the_command_stay():
    assert parse_command("```bash\r\nprintf 'a\r\nb'\r\n```\r\n") == "printf 'a\r\nb'"


def test_other_languages_and_unlabelled_blocks_are_illustration():
    text = "It does:\n```python\nprint(1)\n```\nand\n```\nnothing\n```\n" + block("pwd")
    assert parse_command(text) == "pwd"


def test_a_heredoc_may_write_labelled_fences():
    command = "cat > README.md <<'EOF'\n```python\nx = 1\n```\nEOF"
    assert parse_command(block(command)) == command


def test_indented_fences_belong_to_the_command():
    patch = "git apply <<'P'\n ```\n+x\nP"
    assert parse_command(block(patch)) == patch


def test_commands_considered_while_thinking_do_not_count():
    assert parse_command("<think>\n" + block("rm -rf /") + "</think>\n" + block("ls")) == "ls"
    assert parse_command(block("rm x") + "</think>" + block("ls")) == "ls"
    with pytest.raises(FormatError, match="no closed"):
        parse_command("<think>\n" + block("rm -rf /"), truncated=True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("I am done.", "found none"),
        ("", "found none"),
        (block("ls") + block("pwd"), "found 2"),
        (block(""), "empty"),
        (block("  \n "), "empty"),
        ("```bash\nls", "no closed"),
        (block("ls") + "```bash\npwd", "no closed"),
        ("```python\nprint(1)\n```", "found none"),
        ("run `ls` or ```ls```", "found none"),
        (block("printf '\0'"), "NUL"),
    ],
)
def test_anything_else_is_answered_with_what_to_do(text, said):
    with pytest.raises(FormatError, match=said) as caught:
        parse_command(text)
    assert "exactly one command" in str(caught.value)


def test_a_truncated_reply_is_read_and_else_says_that_it_was_cut():
    assert parse_command(block("ls") + "and then I wi", truncated=True) == "ls"
    for text in ("```bash\ncat <<EOF > x", "THOUGHT: I wond"):
        with pytest.raises(FormatError, match="token limit"):
            parse_command(text, truncated=True)
