import io
import logging
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from rich.console import Console

from contextrl.scripts import stages as stages_module
from contextrl.scripts.console import ScriptError
from contextrl.scripts.stages import Cache, Stages, file_digest, model_digest, source_digest


def test_a_folder_is_made_once_per_inputs(tmp_path):
    cache, made = Cache(tmp_path), []

    def make(folder):
        made.append(folder)
        (folder / "x").write_text("made")

    first, cached_first = cache.folder("kind", {"a": 1}, make)
    second, cached_second = cache.folder("kind", {"a": 1}, make)
    other, _ = cache.folder("kind", {"a": 2}, make)
    assert first == second != other
    assert (cached_first, cached_second, len(made)) == (False, True, 2)
    assert (first / "x").read_text() == "made"


def test_an_interrupted_stage_is_not_taken_for_complete(tmp_path):
    cache = Cache(tmp_path)

    def interrupted(folder):
        (folder / "half").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.folder("kind", {"a": 1}, interrupted)
    folder, cached = cache.folder("kind", {"a": 1}, lambda draft: (draft / "x").touch())
    assert not cached
    assert not (folder / "half").exists()
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_resumable_stage_goes_on_with_what_it_had(tmp_path):
    cache, seen = Cache(tmp_path), []

    def make(folder):
        seen.append((folder / "played").exists())
        (folder / "played").touch()
        if len(seen) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.folder("kind", {"a": 1}, make, resumable=True)
    folder, cached = cache.folder("kind", {"a": 1}, make, resumable=True)
    assert (seen, cached) == ([False, True], False)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_two_jobs_that_want_one_folder_make_it_once(tmp_path, caplog):
    making, done = threading.Event(), threading.Event()
    made, found = [], {}

    def job(name):
        def make(folder):
            made.append(name)
            (folder / "model").write_text(name)
            making.set()
            done.wait(20)

        folder, cached = Cache(tmp_path).folder("policy", {"x": 1}, make)
        found[name] = (cached, (folder / "model").read_text())

    first, second = (threading.Thread(target=job, args=(name,)) for name in ("first", "second"))
    with caplog.at_level(logging.WARNING):
        first.start()
        assert making.wait(20)
        second.start()
        while "waiting for it" not in caplog.text:
            second.join(0.01)
        done.set()
        first.join(20)
        second.join(20)
    assert made == ["first"]
    assert found == {"first": (False, "first"), "second": (True, "first")}


def test_a_folder_that_came_meanwhile_is_not_replaced(tmp_path):
    """As on a disk that knows no locks."""
    cache = Cache(tmp_path)
    inputs = {"x": 1}

    def make(draft):
        other = tmp_path / "kind" / stages_module.digest(inputs)
        other.mkdir()
        (other / "model").write_text("in use")
        (other / stages_module.COMPLETE).touch()
        (draft / "model").write_text("late")

    folder, cached = cache.folder("kind", inputs, make)
    assert (cached, (folder / "model").read_text()) == (True, "in use")
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_two_models_of_the_hub_have_two_digests(monkeypatch):
    monkeypatch.setattr(stages_module, "_hub_revision", {"a/small": "1"}.get)
    digests = {name: model_digest(Path(name)) for name in ("a/small", "a/large")}
    assert len(set(digests.values())) == 2
    monkeypatch.setattr(stages_module, "_hub_revision", {"a/small": "2"}.get)
    assert model_digest(Path("a/small")) != digests["a/small"]


def test_a_revision_that_is_here_already_asks_no_network(monkeypatch, tmp_path):
    import huggingface_hub

    here = tmp_path / "snapshots" / "c0ffee" / "config.json"
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: str(here))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", None)
    assert stages_module._hub_revision("a/small") == "c0ffee"


def test_a_model_that_cannot_be_reached_goes_by_its_name(monkeypatch):
    import huggingface_hub

    def unreachable(*_):
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", unreachable)
    assert stages_module._hub_revision("nobody/has-this") == ""


@pytest.mark.parametrize("name", ["empty", "none", "none/at/all"])
def test_what_holds_no_file_has_no_digest(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ScriptError, match="found none"):
        file_digest(tmp_path / name)
    with pytest.raises(ScriptError, match="found none"):
        model_digest(tmp_path / name)


def test_a_folders_digest_knows_names_and_places_below_it(tmp_path):
    def digest_of(*names):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text("same")
        return file_digest(folder)

    digests = [digest_of("a"), digest_of("b"), digest_of("x/a"), digest_of("a", "b")]
    assert len(set(digests)) == 4
    assert digest_of("a") == digests[0]


def test_a_packages_digest_knows_what_is_below_it(tmp_path):
    package = tmp_path / "digested"
    (package / "below").mkdir(parents=True)
    for name in ("__init__.py", "below/__init__.py", "below/task.jinja"):
        (package / name).write_text("")
    script = (
        "from contextrl.scripts.stages import source_digest; print(source_digest('digested'))\n"
        "import sys; assert 'torch' not in sys.modules"
    )

    def digest_now():
        command = [sys.executable, "-c", script]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout

    before = digest_now()
    assert digest_now() == before
    (package / "below" / "task.jinja").write_text("other words")
    assert digest_now() != before


def test_the_code_of_actions_and_prompts_is_in_the_digest_of_agents():
    import importlib.resources

    root = importlib.resources.files("contextrl.agents")
    names = {name for name, _ in stages_module._code_below(root)}
    assert {"actions/fenced.py", "prompts/compact_task.jinja", "rollout.py"} <= names
    assert source_digest("contextrl.agents") != source_digest("contextrl.agents:rollout.py")


def test_a_stage_is_said_and_timed_even_if_it_fails():
    out = io.StringIO()
    stages = Stages(Console(file=out, width=200))
    with pytest.raises(ValueError, match="no"), stages.stage("train", "learning"):
        raise ValueError("no")
    assert "train: learning" in out.getvalue()
    assert stages.seconds["train"] >= 0
