"""One spelling of the hub, whoever reads it; no test asks the network."""

from __future__ import annotations

import pytest

from contextrl.pairs.errors import SourceError
from contextrl.pairs.hub import HubName, fetched, hub_rows, hub_table, settled
from contextrl.pairs.sources import parts_of

FILES = ("README.md", "pairs.jsonl", "swe_gym_train.parquet", "more/train-0.parquet")


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A repository of `FILES`, by the two functions of huggingface_hub that are used."""
    huggingface_hub = pytest.importorskip("huggingface_hub")

    def files(repository, *, repo_type):
        assert (repository, repo_type) == ("someone/set", "dataset")
        return list(FILES)

    def download(repository, file, *, repo_type):
        path = tmp_path / file
        path.parent.mkdir(exist_ok=True)
        path.write_text('{"prompt": "A or B?", "correct_answer": "A"}\n')
        return str(path)

    monkeypatch.setattr(huggingface_hub, "list_repo_files", files)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    return tmp_path


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("hf://o/n", HubName("o/n", "train", "")),
        ("hf://o/n.v2@test[:5]", HubName("o/n.v2", "test[:5]", "")),
        ("hf://o/n/*.jsonl", HubName("o/n", "train", "*.jsonl")),
        ("hf://o/n/data/x@1.parquet", HubName("o/n", "train", "data/x@1.parquet")),
    ],
)
def test_a_name_is_a_data_set_a_split_of_it_or_one_file(source, name):
    assert HubName.parse(source) == name


@pytest.mark.parametrize(
    "source", ["hf://n", "hf://o/n@", "hf://o/n/", "hf://o/n@test/x", "hub:o/n"]
)
def test_another_spelling_is_one_line(source):
    with pytest.raises(SourceError, match=r"expected hf://owner/name, .*, found h"):
        HubName.parse(source)


def test_a_pattern_is_the_one_file_that_fits(hub):
    path = str(hub / "pairs.jsonl")
    assert fetched("hf://someone/set/*.jsonl") == path
    assert settled("hf://someone/set/*.jsonl") == path
    assert parts_of("hf://someone/set/*.jsonl") == [path]
    assert fetched("hf://someone/set/swe_gym_*.parquet") == str(hub / "swe_gym_train.parquet")


@pytest.mark.parametrize(
    ("pattern", "found"),
    [("*.txt", "found none"), ("*.parquet", "found swe_gym_train.parquet, more/train-0.parquet;")],
)
def test_none_or_several_files_are_one_line(hub, pattern, found):
    with pytest.raises(SourceError, match=f"expected one file like .* in the data set.*{found}"):
        fetched(f"hf://someone/set/{pattern}")


def test_a_hub_that_does_not_answer_is_one_line(monkeypatch):
    huggingface_hub = pytest.importorskip("huggingface_hub")
    httpx = pytest.importorskip("httpx")

    def files(*_, **__):
        raise httpx.ConnectError("no route\nand more")

    monkeypatch.setattr(huggingface_hub, "list_repo_files", files)
    with pytest.raises(SourceError, match=r"^hf://o/n/x: the hub does not give it: no route$"):
        fetched("hf://o/n/x")


def test_a_bug_of_ours_is_not_laid_on_the_hub(monkeypatch):
    huggingface_hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(huggingface_hub, "list_repo_files", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        fetched("hf://o/n/x")


def test_what_is_not_on_the_hub_stays_what_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert fetched("a/b.jsonl") == "a/b.jsonl"
    assert settled("a/b.jsonl") == str(tmp_path / "a/b.jsonl")
    assert settled("hf://o/n@test") == "hf://o/n@test"


def test_a_data_set_is_streamed_or_kept_as_a_table(tmp_path, monkeypatch):
    pytest.importorskip("datasets")
    monkeypatch.chdir(tmp_path)  # `datasets` takes a folder of that name for the set
    (tmp_path / "someone/set").mkdir(parents=True)
    (tmp_path / "someone/set/train.jsonl").write_text('{"n": 0}\n{"n": 1}\n{"n": 2}\n')
    rows = list(hub_rows("hf://someone/set", wanted={0, 2}))
    assert [(str(at.path), at.number, at.row) for at in rows] == [
        ("someone/set", 0, {"n": 0}),
        ("someone/set", 2, {"n": 2}),
    ]
    assert hub_table("hf://someone/set@train")["n"][:] == [0, 1, 2]
    with pytest.raises(SourceError, match="hf://someone/set@nosuch: the hub does not give it"):
        hub_table("hf://someone/set@nosuch")
