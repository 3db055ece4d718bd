"""The benchmark of the viewers measures what it says, on a run of a few trajectories."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from contextrl.scripts.cli_bench import app


@pytest.mark.slow
def test_every_measurement_is_made():
    done = CliRunner().invoke(app, ["viewer", "--runs", "30", "--json"])
    assert done.exit_code == 0, done.output
    timings = {line["name"]: line for line in map(json.loads, done.stdout.splitlines())}
    assert list(timings) == [
        "index",
        "first rows on the screen",
        "all rows on the screen",
        "the long one opened",
        "next step, with its tokens",
        "the last one opened",
        "page written",
    ]
    assert all(timing["cpu_s"] >= 0 for timing in timings.values())
