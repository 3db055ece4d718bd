import io

import pytest
from rich.console import Console

from contextrl.scripts.stages import Cache, Stages


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


def test_a_stage_is_said_and_timed_even_if_it_fails():
    out = io.StringIO()
    stages = Stages(Console(file=out, width=200))
    with pytest.raises(ValueError, match="no"), stages.stage("train", "learning"):
        raise ValueError("no")
    assert "train: learning" in out.getvalue()
    assert stages.seconds["train"] >= 0
