"""What a local model is told about itself before it scores: folders and pairs it cannot take."""

import shutil

import pytest
from transformers import AutoConfig

from contextrl.pairs.render import EncodedPair
from contextrl.verl_ext import scorer_hf
from contextrl.verl_ext.errors import ModelError
from contextrl.verl_ext.scorer_hf import HFPairScorer, load_model, load_tokenizer


def test_a_pair_beyond_the_models_positions_is_refused_and_not_scored(random_model):
    model = load_model(str(random_model), "float32")
    most = model.config.max_position_embeddings
    scorer = HFPairScorer(model, load_tokenizer(str(random_model)))

    def pair(length):
        return EncodedPair("p", (5,) * length, correct_ids=(6,), other_ids=(7,))

    assert len(scorer.margins([pair(most)])) == 1
    with pytest.raises(ModelError, match=f"found {most + 1}; trim them with --max-tokens {most}"):
        scorer.margins([pair(8), pair(most + 1)])
    model.config.rope_parameters = {**model.config.rope_parameters, "rope_type": "yarn"}
    assert len(scorer.margins([pair(most + 1)])) == 1, "how far scaled positions reach is unknown"


def test_a_folder_without_a_tokenizer_is_named(random_model, tmp_path):
    shutil.copy(random_model / "config.json", tmp_path)
    with pytest.raises(ModelError, match="expected a tokenizer in"):
        load_tokenizer(str(tmp_path))
    shutil.copy(random_model / "chat_template.jinja", tmp_path)
    with pytest.raises(ModelError, match="expected a tokenizer in"):
        load_tokenizer(str(tmp_path))


def test_a_hub_that_cannot_be_reached_is_asked_once(monkeypatch):
    asked = []

    def unreachable(path):
        asked.append(path)
        raise OSError("We couldn't connect to the hub.\nCheck your connection.")

    monkeypatch.setattr(AutoConfig, "from_pretrained", unreachable)
    with pytest.raises(ModelError, match=r"owner/model: We couldn't connect to the hub\.$"):
        scorer_hf.load_tokenizer("owner/model")
    assert asked == ["owner/model"]
