"""The shared page in a real browser: what a reader can do, and what a hostile trajectory cannot."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contextrl.agents.store import TRAJECTORIES, RunStore
from contextrl.agents.types import (
    BranchPoint,
    Message,
    Step,
    StopReason,
    TokenRecord,
    Trajectory,
)
from contextrl.agents.viewer.index import TrajectoryIndex
from contextrl.agents.viewer.page import Series, write_page
from contextrl.agents.viewer.pairs import Cell, Label, PairView, align
from contextrl.envs.types import Outcome, Reward, Verdict

ATTACK = (
    "</script><script>document.title='owned'</script><img src=x onerror=document.title='owned'>"
    "<svg onload=document.title='owned'>\u202ereversed\x1b[31m{{7*7}}<!--"
)


def make(number: int, *, text: str = "look", **fields: Any) -> Trajectory:
    steps = (
        Step(
            text=f"{text} first\n\n```bash\ncat tiny.py\n```",
            command="cat tiny.py",
            observation="\n".join(f"line {n} {text}" for n in range(60)),
            exit_code=0,
            token_span=(0, 3),
        ),
        Step(
            text=f"{text} then\n\n```bash\nsed -i s/a/b/ tiny.py\n```",
            command="sed -i s/a/b/ tiny.py",
            observation="(no output)",
            exit_code=0,
            token_span=(5, 7),
        ),
        Step(
            text="test\n\n```bash\npytest -q\n```",
            command="pytest -q",
            observation="FAILED test_tiny.py::test_add\n1 failed",
            exit_code=1,
        ),
        Step(text="```bash\nsubmit\n```", command="submit", observation=""),
    )
    resolved = number % 3 == 0
    return Trajectory(
        **{
            "trajectory_id": f"task-{number}/train-{number % 5}/0",
            "task_id": f"task-{number}",
            "phase": "train",
            "train_step": number % 5,
            "policy": "tiny",
            "messages": (Message(role="user", content=f"fix it {text}"),),
            "steps": steps,
            "tokens": TokenRecord(
                prompt_ids=(1, 2, 3),
                response_ids=tuple(range(8)),
                response_mask=(1, 1, 1, 0, 0, 1, 1, 0),
                response_logprobs=(-0.1, -2.0, -0.01, 0, 0, -0.5, -0.5, 0),
            ),
            "stop_reason": StopReason.SUBMITTED,
            "submission": f"--- a/x\n+++ b/x\n{text}",
            "reward": Reward(
                verdict=Verdict.RESOLVED if resolved else Verdict.UNRESOLVED,
                tests={"test_a": Outcome.PASSED if resolved else Outcome.FAILED},
            ),
            **fields,
        }
    )


def store(folder: Path, trajectories: list[Trajectory]) -> TrajectoryIndex:
    with RunStore.open(folder, {}) as run:
        for trajectory in trajectories:
            run.append(trajectory)
    return TrajectoryIndex(folder)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no chromium on this machine")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def visit(browser) -> Iterator[Any]:
    """Opens a file; afterwards the page must have asked for nothing else and met no error."""
    with contextlib.ExitStack() as stack:

        def open_(file: Path, fragment: str = "", **options: Any) -> Any:
            context = browser.new_context(**options)
            stack.callback(context.close)
            context.set_default_timeout(120_000)  # a busy machine
            page = context.new_page()
            page.requests, page.problems = [], []
            page.on("request", lambda request: page.requests.append(request.url))
            page.on("pageerror", lambda error: page.problems.append(str(error)))
            page.on("dialog", lambda dialog: page.problems.append(dialog.message))
            page.goto(f"{file.as_uri()}{fragment}")
            stack.callback(check, page, file)
            return page

        def check(page: Any, file: Path) -> None:
            assert page.problems == []
            assert {url.partition("#")[0] for url in page.requests} == {file.as_uri()}

        yield open_


@pytest.fixture(scope="module")
def page_file(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    trajectories = [make(number) for number in range(250)]
    trajectories[0] = make(0, text=ATTACK)
    branch = BranchPoint(parent_id=trajectories[1].trajectory_id, step=1)
    trajectories.append(
        make(999, trajectory_id="task-1/branch-0/0", task_id="task-1", branch=branch)
    )
    cells = tuple(Cell(role="user", text=text) for text in ("same", f"one {ATTACK}"))
    others = (cells[0], Cell(role="user", text="two\nkey line", decisive=("key line",)))
    pair = PairView(
        pair_id="pair-1",
        question="which?",
        answer=ATTACK,
        rows=align(cells, others),
        margins={"positive-first": 1.25, "positive-second": -0.5},
        label=Label.VALID,
    )
    write_page(
        folder / "page.html",
        title=f"A run {ATTACK}",
        index=store(folder / "run", trajectories),
        pairs=[pair],
        series=[Series(name="CA accuracy by step", points=((1, 0.5), (2, 0.75)))],
        decode=lambda ids: [f"<{each}>" for each in ids],
    )
    return folder / "page.html"


def test_the_overview_counts_filters_and_sorts(page_file, visit):
    page = visit(page_file)
    page.wait_for_selector("table")
    assert page.locator("#table tbody tr").count() == 100
    assert "251 of 251, page 1 of 3" in page.inner_text("#table [role=status]")
    assert page.locator("svg[aria-label^='CA accuracy by step: 1: 0.500']").count() == 1
    page.select_option("#outcome", "resolved")
    assert "85 of 251" in page.inner_text("#table [role=status]")
    page.fill("#query", "task-24")
    assert page.locator("#table tbody tr").count() == 5
    page.fill("#query", "/task-24[07]/")
    assert page.locator("#table tbody tr").count() == 1
    page.fill("#query", "")
    page.click("th button:has-text('Step')")
    assert page.locator("th[aria-sort=ascending]").inner_text().startswith("Step")
    first = page.inner_text("#table tbody tr:first-child")
    page.click("th button:has-text('Step')")
    assert page.inner_text("#table tbody tr:first-child") != first


def test_nothing_that_a_trajectory_says_runs_or_becomes_markup(page_file, visit):
    page = visit(page_file, "#/t/task-0%2Ftrain-0%2F0")
    page.wait_for_selector("article")
    assert page.title() != "owned"
    assert page.locator("main img, main script, main article svg").count() == 0
    shown = page.inner_text("#step-0 pre")
    assert "<img src=x onerror=" in shown
    assert "<U+202E>reversed" in shown  # seen, not obeyed
    assert "\x1b" not in shown
    page.goto(f"{page_file.as_uri()}#/p/pair-1")
    page.wait_for_selector(".pair")
    assert page.title() != "owned"
    page.goto(f"{page_file.as_uri()}#/t/%3Cimg%20src=x%20onerror=document.title='owned'%3E")
    page.wait_for_selector("main p.bad")
    assert page.title() != "owned"
    # Even markup that got in would not run: the policy allows one script, by its digest.
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"boom=1\">')")
    page.evaluate(
        "s = document.createElement('script'); s.textContent = 'boom = 1'; document.body.append(s)"
    )
    page.wait_for_timeout(100)
    assert page.evaluate("typeof boom") == "undefined"
    page.requests[:] = [url for url in page.requests if not url.endswith("/x")]


def test_a_deep_link_opens_the_step_and_keys_move(page_file, visit):
    page = visit(page_file, "#/t/task-1%2Ftrain-1%2F0/s/2")
    page.wait_for_selector("article.on")
    assert page.locator("article.on").get_attribute("id") == "step-1"
    page.keyboard.press("j")
    assert page.locator("article.on").get_attribute("id") == "step-2"
    assert page.url.endswith("/s/3")
    page.keyboard.press("k")
    page.keyboard.press("k")
    page.keyboard.press("e")
    assert page.locator("article.on").get_attribute("id") == "step-1"
    page.keyboard.press("x")
    assert page.locator("article.on").get_attribute("id") == "step-2"
    page.keyboard.press("n")
    page.wait_for_selector("h2:has-text('task-2/train-2/0')")
    page.keyboard.press("p")
    page.wait_for_selector("h2:has-text('task-1/train-1/0')")
    page.click("text=task-1/branch-0/0")
    page.wait_for_selector("text=Branched off")
    page.keyboard.press("u")
    page.wait_for_selector("#table")
    page.keyboard.press("?")
    assert page.locator("dialog[open]").count() == 1


def test_a_trajectory_opens_with_what_became_of_it_in_sight(page_file, visit):
    page = visit(page_file)
    page.click("text=task-2/train-2/0")
    page.wait_for_selector("article.on")
    assert page.evaluate("scrollY") == 0
    assert page.locator("main p:has-text('ended by submitted')").is_visible()
    page.keyboard.press("j")
    assert page.locator("article.on").get_attribute("id") == "step-1"


def test_long_output_folds_and_search_marks(page_file, visit):
    page = visit(page_file, "#/t/task-1%2Ftrain-1%2F0")
    page.wait_for_selector("article.on")
    block = page.locator("#step-0 pre.observation")
    folded = block.bounding_box()["height"]
    page.keyboard.press("f")
    assert block.bounding_box()["height"] > 2 * folded
    page.keyboard.press("/")
    page.keyboard.type("/line [0-9] /")
    assert page.inner_text("#found") == "10 found"
    assert page.locator("#step-0 mark").count() == 10
    page.fill("#find", "/(/")
    assert page.inner_text("#found") == "not a regular expression"


def test_tokens_show_what_was_sampled_and_how_likely(page_file, visit):
    page = visit(page_file, "#/t/task-1%2Ftrain-1%2F0")
    page.wait_for_selector("article.on")
    page.keyboard.press("t")
    tokens = page.locator("#step-0 .tokens > span:not(.masked)")
    assert tokens.all_inner_texts() == ["<0>", "<1>", "<2>"]
    assert tokens.nth(1).get_attribute("title") == "log p -2"
    assert "2 tokens masked" in page.inner_text("#step-0 .masked")
    assert "No tokens in this record" in page.inner_text("#step-2")


# Every text that can be seen: its ratio by WCAG 2.1, from the colours that the browser computed.
CONTRASTS = """() => {
  const parse = (css) => css.match(/[\\d.]+/g).map(Number);
  const over = (top, below) => {
    const alpha = top.length > 3 ? top[3] : 1;
    return [0, 1, 2].map((n) => top[n] * alpha + below[n] * (1 - alpha));
  };
  const luminance = (rgb) => {
    const linear = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = rgb.map((c) => linear(c / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    const unseen = element.closest("script, style, noscript, [disabled], .sr");
    if (unseen || !walker.currentNode.data.trim() || !element.checkVisibility()) continue;
    let ground = [255, 255, 255], opacity = 1;
    const chain = [];
    for (let up = element; up; up = up.parentElement) chain.unshift(up);
    for (const each of chain) {
      const style = getComputedStyle(each);
      ground = over(parse(style.backgroundColor), ground);
      opacity *= Number(style.opacity);
    }
    const style = getComputedStyle(element);
    const ink = parse(element instanceof SVGElement ? style.fill : style.color);
    const [low, high] = [luminance(over([...ink.slice(0, 3), (ink[3] ?? 1) * opacity], ground)),
      luminance(ground)].sort((x, y) => x - y);
    found.push([(high + 0.05) / (low + 0.05), element.tagName + "." + element.getAttribute("class"),
      walker.currentNode.data.slice(0, 40)]);
  }
  return found.sort((x, y) => x[0] - y[0]);
}"""
VIEWS = ("", "#/t/task-1%2Ftrain-1%2F0", "#/p/pair-1")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("fragment", VIEWS, ids=["table", "trajectory", "pair"])
def test_every_text_has_contrast_and_a_phone_needs_no_sideways_scroll(
    page_file, visit, scheme, fragment
):
    phone = {"viewport": {"width": 390, "height": 844}, "color_scheme": scheme}
    page = visit(page_file, fragment, **phone)
    page.wait_for_selector("main h2")
    if "#/t" in fragment:
        page.fill("#find", "line")  # marked text has a ground of its own
        page.click("#tokens")
        page.click("summary >> nth=0")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    found = page.evaluate(CONTRASTS)
    assert len(found) > 10
    assert found[0][0] >= 4.5, found[:5]


def test_tab_goes_through_the_page_in_order_and_shows_where_it_is(page_file, visit):
    page = visit(page_file)
    page.wait_for_selector("#table tbody tr")
    seen = []
    for _ in range(8):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.id || document.activeElement.innerText"))
        width = "parseFloat(getComputedStyle(document.activeElement).outlineWidth)"
        assert page.evaluate(width) >= 2, seen
    assert seen[0] == "Skip to content"
    assert seen[2:] == ["theme", "help", "query", "outcome", "phase", "Trajectory"]
    page.keyboard.press("Enter")  # sorts by the column that has the focus
    assert page.locator("th[aria-sort=ascending]").inner_text().startswith("Trajectory")
    assert page.evaluate("document.activeElement.innerText").startswith("Trajectory")


def test_a_screen_reader_finds_the_parts_by_role_and_name(page_file, visit):
    page = visit(page_file)
    page.wait_for_selector("#table tbody tr")
    for role, name in (
        ("main", None),
        ("banner", None),
        ("table", "Trajectories"),
        ("table", "Pairs"),
        ("img", "What became of them"),
        ("columnheader", "Outcome"),
        ("searchbox", None),
        ("combobox", "Outcome"),
        ("status", None),
    ):
        assert page.get_by_role(role, name=name).count() >= 1, (role, name)
    page.goto(f"{page_file.as_uri()}#/t/task-1%2Ftrain-1%2F0")
    page.wait_for_selector("article.on")
    assert page.get_by_role("navigation", name="Steps").count() == 1
    assert page.get_by_role("article", name="Step 2").count() == 1
    assert page.get_by_role("button", name="Tokens", pressed=False).count() == 1
    unnamed = "[...document.querySelectorAll('button, a, input, select, summary')]"
    unnamed += ".filter((e) => !e.innerText.trim() && !e.labels?.length).length"
    assert page.evaluate(unnamed) == 0
    page.keyboard.press("?")
    assert page.get_by_role("dialog", name="Keys").count() == 1
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0


def test_links_of_a_trajectory_stay_text_and_a_gigantic_line_can_be_read(tmp_path, visit):
    linked = "[x](javascript:alert(1)) <a href='javascript:alert(1)'>y</a> data:text/html,<script>"
    steps = (
        Step(text=linked, command=f"echo '{linked}'", observation=f"{linked}\u200b\u061c\ufeff"),
        Step(text="long", command="cat big", observation="x" * 2_000_000),
    )
    run = make(1, steps=steps, tokens=None, trajectory_id='a/#/../%2F"><svg onload=alert(1)>')
    write_page(tmp_path / "page.html", title="x", index=store(tmp_path / "run", [run]))
    page = visit(tmp_path / "page.html")
    page.click("#table tbody a")
    page.wait_for_selector("article.on")
    assert page.evaluate("[...document.links].every((a) => a.getAttribute('href')[0] === '#')")
    assert "<U+200B><U+061C><U+FEFF>" in page.inner_text("#step-0 pre.observation")
    page.keyboard.press("j")
    assert page.locator("#step-1 pre.folded").bounding_box()["height"] < 500
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.fill("#find", "x")
    assert page.inner_text("#found").endswith("found")


@pytest.mark.slow
def test_ten_thousand_trajectories_stay_usable(tmp_path, visit):
    file = tmp_path / "run" / TRAJECTORIES
    file.parent.mkdir()
    lines = (make(number).model_dump_json() for number in range(10_000))
    file.write_text("\n".join(lines) + "\n")
    write_page(tmp_path / "page.html", title="big", index=TrajectoryIndex(file.parent))
    page = visit(tmp_path / "page.html")
    began = time.perf_counter()
    page.wait_for_selector("#table tbody tr")
    assert time.perf_counter() - began < 5.0
    page.fill("#query", "task-9999/")
    page.click("#table tbody a")
    page.wait_for_selector("article.on", timeout=3000)
