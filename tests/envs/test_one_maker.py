"""Two that want the same thing made at the same time."""

import subprocess
import sys
import threading
import time

from contextrl.envs.one_maker import one_maker


def test_threads_that_want_the_same_take_turns(tmp_path, monkeypatch):
    monkeypatch.setattr("contextrl.envs.one_maker.CACHE", tmp_path)
    inside, most = [], []

    def make() -> None:
        with one_maker("image"):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.05)
            inside.pop()

    makers = [threading.Thread(target=make) for _ in range(4)]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join()
    assert most == [1, 1, 1, 1]


def test_different_things_are_made_side_by_side(tmp_path, monkeypatch):
    monkeypatch.setattr("contextrl.envs.one_maker.CACHE", tmp_path)
    with one_maker("one image"), one_maker("another"):
        pass


def test_a_killed_maker_holds_nobody_up(tmp_path, monkeypatch):
    monkeypatch.setattr("contextrl.envs.one_maker.CACHE", tmp_path)
    holder = (
        "import pathlib, time, contextrl.envs.one_maker as m\n"
        f"m.CACHE = pathlib.Path({str(tmp_path)!r})\n"
        "with m.one_maker('image'):\n    print('in', flush=True)\n    time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", holder], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"in\n"
        process.kill()
        process.wait()
    began = time.monotonic()
    with one_maker("image"):
        assert time.monotonic() - began < 30
