"""One step as a terminal shows it. Everything that was recorded is text, never console markup."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.rule import Rule
from rich.style import Style
from rich.syntax import Syntax
from rich.text import Text

from contextrl.agents.replay import StepReplay, StepResult
from contextrl.agents.types import StopReason, Trajectory
from contextrl.agents.viewer.steps import StepView, lacks
from contextrl.agents.viewer.visible import visible

FOLD_LINES = 30
MAX_HEAT_TOKENS = 4000
FOUND = "black on yellow"

Decode = Callable[[Sequence[int]], list[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """How a reader wants to see steps."""

    unfolded: bool = False
    tokens: bool = False
    found: re.Pattern[str] | None = None
    unfinished: bool = False
    """The episode goes on, so that the last step's observation is still to come."""
    decode: Decode | None = None


def detail(view: StepView, look: Look, replayed: StepReplay | None = None) -> Group:
    return Group(*_parts(view, look, replayed))


def _parts(view: StepView, look: Look, replayed: StepReplay | None) -> Iterator[RenderableType]:
    yield facts(view)
    if replayed is not None:
        yield from _replayed(replayed)
    if view.thought and view.thought.strip() != (view.step.command or "").strip():
        yield Rule("thought", align="left", style="dim")
        yield _text(view.thought, look)
    if view.step.command is not None:
        yield Rule("command", align="left", style="dim")
        yield _command(view.step.command, look)
    yield Rule("observation", align="left", style="dim")
    none = "(not yet)" if look.unfinished else "(none: the episode ended here)"
    yield _text(view.step.observation or none, look)
    if look.tokens:
        yield Rule("tokens", align="left", style="dim")
        yield heat(view, look.decode)


def facts(view: StepView) -> Text:
    step = view.step
    found = Text().append(f"step {view.index + 1}  {view.kind}", "bold")
    if step.exit_code is not None:
        found.append(f"  exit {step.exit_code}", "red" if step.exit_code else "green")
    if step.timed_out:
        found.append("  time limit", "red")
    if view.failing_tests:
        found.append("  failing tests", "red")
    if step.policy_s or step.sandbox_s:
        found.append(f"  policy {step.policy_s:.2f} s, sandbox {step.sandbox_s:.2f} s", "dim")
    if view.context_used is not None and view.tokens is not None:
        found.append(
            f"  context {view.context_used} + {len(view.tokens.ids)} sampled, then "
            f"{view.masked_after} masked tokens",
            "dim",
        )
    return found


def heat(view: StepView, decode: Decode | None) -> Text:
    """Sampled tokens on a ground from green (certain) to red; masked ones only counted."""
    if view.tokens is None:
        return Text("This record keeps no tokens of the reply.", "dim")
    ids, logprobs = view.tokens.ids[:MAX_HEAT_TOKENS], view.tokens.logprobs
    pieces = decode(ids) if decode is not None else ["\u25a0"] * len(ids)
    shown = Text()
    for piece, logprob in zip(pieces, logprobs, strict=False):
        p = math.exp(min(0.0, logprob))
        ground = Style(color="white", bgcolor=f"rgb({int(150 * (1 - p))},{int(95 * p)},30)")
        shown.append(visible(piece), ground)
    if len(view.tokens.ids) > len(ids):
        shown.append(f" and {len(view.tokens.ids) - len(ids)} more", "dim")
    shown.append(f"\n{view.masked_after} masked tokens follow: observation and template", "dim")
    if decode is None:
        shown.append("\nTheir text needs the run's tokenizer: pass --tokenizer.", "dim")
    return shown


def opening(trajectory: Trajectory) -> Text:
    """What stands above the steps."""
    reward = trajectory.reward
    found = Text().append(visible(trajectory.trajectory_id), "bold")
    detail = visible(trajectory.stop_detail)[:120]
    if trajectory.stop_reason is StopReason.UNFINISHED:
        found.append(f"\nrunning since {visible(trajectory.started_at)}: ", "bold green")
        found.append(f"{detail}, policy {visible(trajectory.policy)}")
    else:
        found.append(f"\n{reward.verdict if reward else 'not graded'}", "bold")
        found.append(f", ended by {trajectory.stop_reason}")
        if detail.lower() != trajectory.stop_reason:  # a foreign file's own word for it
            found.append(f" {detail}")
        seconds = trajectory.timings.total_s
        took = f", {seconds:.1f} s" if seconds else ""
        found.append(f"  {visible(trajectory.policy)}{took}", "dim")
    if trajectory.branch is not None:
        parent = visible(trajectory.branch.parent_id)
        found.append(f"\nbranched off {parent} before step {trajectory.branch.step + 1}", "cyan")
        if not trajectory.branch.repeated:
            found.append("; the steps before it did not all repeat", "yellow")
    for reason in lacks(trajectory):
        found.append(f"\n{reason}", "yellow")
    return found


def _replayed(step: StepReplay) -> Iterator[RenderableType]:
    if step.result is StepResult.REPRODUCED:
        yield Text(f"re-executed: reproduced ({step.match})", "green")
    elif step.result is StepResult.NOT_RUN:
        yield Text(f"re-executed: nothing to run ({step.cause})", "dim")
    else:
        yield Text(f"re-executed: {step.result} ({step.cause})", "bold red")
        yield Text(f"- {visible(step.recorded_line)}", "red")
        yield Text(f"+ {visible(step.repeated_line)}", "green")


def _text(content: str, look: Look) -> Text:
    lines = visible(content).split("\n")
    hidden = 0 if look.unfolded else max(0, len(lines) - FOLD_LINES)
    if look.found is not None and look.found.search(visible(content)):
        hidden = 0  # what was searched for must be seen
    shown = Text("\n".join(lines[: len(lines) - hidden]))
    if look.found is not None:
        shown.highlight_regex(look.found, FOUND)
    if hidden:
        shown.append(f"\n... {hidden} more lines, f unfolds", "dim italic")
    return shown


def _command(command: str, look: Look) -> RenderableType:
    if look.found is not None:
        return _text(command, look)
    return Syntax(visible(command), "bash", theme="ansi_dark", word_wrap=True)
