"""A tiny policy that a full disk did not take is one line, and no cached stage."""

from __future__ import annotations

import pytest
from safetensors import SafetensorError

from contextrl.scripts import console
from contextrl.scripts.stages import Cache
from contextrl.verl_ext.tiny import save

FULL = "Error while serializing: I/O error: No space left on device (os error 28)"


class Unsaved:
    def __init__(self, error: Exception) -> None:
        self._error = error

    def save_pretrained(self, folder):
        (folder / "config.json").write_text("{}")
        raise self._error


def test_a_full_disk_while_a_policy_is_saved_is_one_line_and_leaves_nothing(tmp_path, capsys):
    model = Unsaved(SafetensorError(FULL))
    cache = Cache(tmp_path)
    code = console.run(lambda: cache.folder("policy", {}, lambda folder: save(model, None, folder)))
    assert code == 1
    said = capsys.readouterr().err
    assert "expected free disk space" in said
    assert said.count("\n") == 1
    assert list((tmp_path / "policy").iterdir()) == []


def test_what_is_not_the_disks_doing_stays_what_it_is(tmp_path):
    with pytest.raises(SafetensorError, match="shared memory"):
        save(Unsaved(SafetensorError("two tensors share shared memory")), None, tmp_path)
