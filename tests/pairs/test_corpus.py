"""Public rows to pairs, with every stage's count; resumable; the same for any number of workers."""

from __future__ import annotations

import json
import os
from pathlib import Path
from textwrap import indent

import pytest

from contextrl.pairs.caps import Caps
from contextrl.pairs.corpus_miner import MineSettings, mine_corpus
from contextrl.pairs.decontaminate import Benchmark, Contamination
from contextrl.pairs.diffs import FunctionSource
from contextrl.pairs.errors import SourceError
from contextrl.pairs.index import IndexOptions
from contextrl.pairs.masking import assert_no_leak
from contextrl.pairs.related import RelatedBounds, Relation, relation, similarity
from contextrl.pairs.repositories import Repositories
from contextrl.pairs.store import read_pairs, write_pairs
from contextrl.pairs.types import Instance
from contextrl.scripts.bench_corpus import CorpusShape, write_corpus

SHAPE = CorpusShape(runs=240, repositories=2, files=3, chars=6000, runs_per_instance=1)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(folder, SHAPE)
    return folder


def counts(result) -> dict[str, int]:
    return {stage.name: stage.kept for stage in result.stages}


def mined(corpus, work, **settings):
    work.mkdir(exist_ok=True)
    defaults = {"workers": 1, "caps": Caps(limit=10, per_repository=6)}
    return mine_corpus(
        [str(corpus)], work, IndexOptions(), MineSettings(**{**defaults, **settings})
    )


def test_a_corpus_gives_masked_pairs_of_one_function_and_two_bugs(corpus, tmp_path):
    result = mined(corpus, tmp_path / "work")
    pairs = list(result)
    assert len(pairs) == len(result) == 10
    for pair in pairs:
        assert pair.positive.task_id != pair.negative.task_id
        assert pair.positive.task_id.rpartition(".")[0] == pair.negative.task_id.rpartition(".")[0]
        assert_no_leak(pair.answer, pair.positive.messages)
        assert "<PATCH_MASKED>" in "".join(m.content for m in pair.positive.messages)
        assert pair.positive.decisive
        assert 0 < pair.provenance.issue_similarity < 1
    by_repository = [pair.provenance.repo for pair in pairs]
    assert max(map(by_repository.count, by_repository)) <= 6
    kept = counts(result)
    assert kept["its row can be read"] == 240
    assert kept["same repository and commit"] == 2 * 120 * 119
    assert kept["same file"] > kept["same function"] > kept["different bug"] > 10
    assert kept["within the caps"] == 10


def test_an_unreadable_row_is_counted_with_its_reason(corpus, tmp_path):
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"instance_id": "a__b.01234567.x__1", "messages": []}\n{not json}\n')
    result = mine_corpus([str(broken)], tmp_path, IndexOptions(), MineSettings(workers=1))
    assert result.stages[0].seen == 2
    assert result.stages[0].kept == 0
    (report,) = result.reports
    assert sorted(report.reasons) == [
        "expected a list of messages, found nothing",
        "not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
    ]
    assert report.unreadable[0].row_id == "a__b.01234567.x__1"


def test_a_source_without_rows_is_an_error(tmp_path):
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(SourceError, match="expected rows"):
        mined(tmp_path / "empty.jsonl", tmp_path / "work")


def test_workers_do_not_change_the_pairs(corpus, tmp_path):
    one = [pair.pair_id for pair in mined(corpus, tmp_path / "one")]
    two = [pair.pair_id for pair in mined(corpus, tmp_path / "two", workers=2)]
    assert one == two
    assert one != [pair.pair_id for pair in mined(corpus, tmp_path / "three", seed=1)]


def test_a_part_that_was_indexed_is_not_read_again(corpus, tmp_path, monkeypatch):
    mined(corpus, tmp_path / "work")
    lines = sorted((tmp_path / "work").glob("index-*/*.jsonl"))
    stamps = [path.stat().st_mtime_ns for path in lines]
    assert len(stamps) == 3
    monkeypatch.setattr("contextrl.pairs.index.index_part", None)  # would fail if called
    again = mined(corpus, tmp_path / "work")
    assert len(again) == 10
    assert stamps == [path.stat().st_mtime_ns for path in lines]


def test_a_run_with_a_patch_of_another_repository_is_left_out(corpus, tmp_path):
    rows = [json.loads(line) for line in (corpus / "part-000.jsonl").read_text().splitlines()]
    rows[0]["patch"] = rows[0]["patch"].replace("lib", "elsewhere/")
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    kept = counts(mined(path, tmp_path / "work"))
    assert kept["its patch can be read"] - kept["the patch is of its own repository"] == 1


def test_benchmark_rows_are_left_out(corpus, tmp_path):
    row = json.loads((corpus / "part-000.jsonl").read_text().splitlines()[0])
    repository = row["instance_id"].split(".")[0].replace("__", "/")
    options = IndexOptions(benchmark=Benchmark(repositories=[repository]))
    result = mine_corpus([str(corpus)], tmp_path, options, MineSettings(workers=1))
    assert counts(result)["not of a benchmark"] == 120


def test_what_counts_as_contamination():
    words = "the quick brown fox jumps over one lazy dog while two more cats look at them all day"
    known = Instance(
        task_id="a__b-1", repo="a/b", base_commit="0123abcd" * 5, problem=words, gold_patch=""
    )
    benchmark = Benchmark([known], repositories=["a/c"])

    def found(**changes):
        fields = {"task_id": "x", "repo": "x/y", "base_commit": "ffff", "problem": "short"}
        return benchmark.found_in(Instance(gold_patch="", **{**fields, **changes}))

    assert found() is None
    assert found(repo="A/C") is Contamination.REPOSITORY
    assert found(task_id="a__b-1") is Contamination.INSTANCE
    assert found(base_commit="0123abcd" * 5) is Contamination.COMMIT
    assert found(base_commit="0123abcd") is Contamination.COMMIT
    assert found(problem="Copied: " + words.upper()) is Contamination.TEXT
    assert found(problem=words[:60]) is None


def test_related_has_two_bounds():
    bounds = RelatedBounds(min_similarity=0.2, max_similarity=0.9)
    empty = frozenset()
    clamp = "clamp ignores the upper limit of a range"
    assert relation((clamp, clamp), (empty, empty), bounds) is Relation.SAME_BUG
    other = "clamp raises when the lower limit is negative"
    assert relation((clamp, other), (empty, empty), bounds) is Relation.RELATED
    assert relation((clamp, "crash in the network layer"), (empty, empty), bounds) is (
        Relation.UNRELATED
    )
    same_lines = (frozenset({"ifx<low:"}), frozenset({"ifx<low:", "y"}))
    assert relation((clamp, other), same_lines, bounds) is Relation.SAME_BUG
    assert similarity("", clamp) == 0


def test_functions_are_named_by_the_syntax_tree_of_a_mirror(make, tmp_path):
    git = pytest.importorskip("git")
    root = tmp_path / "mirrors"
    with git.Repo.init(root / "someone__shapes") as repository:
        file = root / "someone__shapes" / make.file
        file.parent.mkdir(parents=True)
        file.write_text("class Shape:\n" + indent(make.buggy("low"), "    "))
        repository.index.add([make.file])
        commit = repository.index.commit("start").hexsha
    instance = Instance(
        task_id="x", repo="someone/shapes", base_commit=commit, problem="", gold_patch=""
    )
    if os.geteuid() == 0:  # mirrors often belong to somebody else, whom `git` does not trust
        for path in [root / "someone__shapes", *(root / "someone__shapes").rglob("*")]:
            os.chown(path, 12345, 12345)
    read = Repositories(root)
    assert "class Shape" in read(instance, make.file)
    assert read(instance, "nowhere.py") is None
    assert read(instance.model_copy(update={"base_commit": "0" * 40}), make.file) is None
    assert read(instance.model_copy(update={"repo": "../someone"}), make.file) is None
    from contextrl.pairs.diffs import touched_regions

    before = read(instance, make.file)
    patch = make.diff(before, before.replace("value <= low", "value < low"))
    (region,) = touched_regions(patch, lambda path: read(instance, path))
    assert (region.function, region.source) == ("Shape.clamp", FunctionSource.SYNTAX_TREE)


def test_mined_pairs_are_stored_and_read_back(corpus, tmp_path):
    result = mined(corpus, tmp_path / "work")
    manifest = write_pairs(
        tmp_path / "out", result, miner="m", seed=0, stages=result.stages, overwrite=False
    )
    assert manifest.n_pairs == 10
    assert read_pairs(tmp_path / "out") == tuple(result)
