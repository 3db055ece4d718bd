"""Reading drills: what they ask has one answer, in the words of the selection prompt."""

import pytest
import torch

from contextrl.pairs.render import COMPACT
from contextrl.verl_ext.drills import DrillMaker
from contextrl.verl_ext.errors import ConfigError
from contextrl.verl_ext.settings import WarmupConfig
from contextrl.verl_ext.sft_data import SFTSequence
from contextrl.verl_ext.tiny import build_model, train_tokenizer
from contextrl.verl_ext.warmup import drill_batch, drill_loss, sft_batch_loss, warm_up

VIEW = ["10:def add(x, y):", "11:    total = x + y", "12:    if total > 3:", "13:        x = 1"]

VIEW_TEXTS = [line.partition(":")[2] for line in VIEW]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["\n".join(VIEW), "A:\nB:\npatch:\nA or B? 0123456789"] * 20, 600)


@pytest.fixture
def maker(tokenizer):
    return DrillMaker(tokenizer, COMPACT, [VIEW], seed=0)


def test_every_question_quotes_a_line_that_stands_in_the_context_it_names(maker, tokenizer):
    _, make = maker.stages[-1]
    asked = 0
    for _ in range(20):
        text = tokenizer.decode(make().token_ids)
        first, second = text.split("patch:")[0].split("B:\n", 1)
        for turn in text.split("patch:\n-")[1:]:
            quoted = turn.split("\nA or B?")[0].split("\n+")[0]
            answer = turn.removesuffix(turn.split("assistant\n")[1][1:])[-1]
            here, there = (first, second) if answer == "A" else (second, first)
            lines = [line.partition(":")[2] for line in here.split("\n")]
            others = [line.partition(":")[2] for line in there.split("\n")]
            if quoted in VIEW_TEXTS:
                continue  # the change drew the token that stood there
            asked += 1
            assert quoted in lines
            assert quoted not in others
    assert asked > 20


def test_letters_are_asked_for_where_the_line_ends_and_where_the_turn_ends(maker, tokenizer):
    drill = maker.stages[-1][1]()
    assert len(drill.positions) == len(drill.second)
    for position, second in zip(drill.positions, drill.second, strict=True):
        following = drill.token_ids[position + 1]
        ends_turn = following in maker.letter_ids
        assert not ends_turn or following == maker.letter_ids[second]
    assert sum(drill.token_ids[p + 1] in maker.letter_ids for p in drill.positions) >= 2


def test_a_turn_is_the_chat_turn_of_the_selection_prompt(maker, tokenizer):
    text = tokenizer.decode(maker.stages[0][1]().token_ids)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "A or B?"}], tokenize=False, add_generation_prompt=True
    )
    assert prompt.split("user\n")[1] in text


def test_the_same_seed_makes_the_same_drills(tokenizer):
    one, two = (DrillMaker(tokenizer, COMPACT, [VIEW], seed=7) for _ in range(2))
    assert [make() for _, make in one.stages] == [make() for _, make in two.stages]


def test_the_loss_of_a_model_that_cannot_read_is_that_of_a_coin(maker, tokenizer):
    model = build_model(
        WarmupConfig(hidden_size=64, layers=2), tokenizer, max_context_tokens=600, seed=0
    )
    loss, accuracy = drill_loss(model, [maker.stages[3][1]() for _ in range(8)], maker.letter_ids)
    assert float(loss.detach()) == pytest.approx(0.693, abs=0.1)
    assert 0.2 < accuracy < 0.8


def test_warm_up_learns_the_runs_it_is_given(tokenizer):
    maker = DrillMaker(tokenizer, COMPACT, [VIEW], seed=0)
    maker.n_basic = 0
    config = WarmupConfig(
        hidden_size=64, layers=2, steps=60, drill_frac=0.2, drill_tokens=1500, batch_size=8
    )
    run = SFTSequence((5, 6, 7, 8, 9), (0.0, 1.0, 1.0, 1.0, 1.0))
    model = warm_up(building(config, tokenizer), lambda: run, maker, config)
    with torch.no_grad():
        assert float(sft_batch_loss(model, [run])) < 0.1


def test_drills_that_do_not_take_off_are_an_error_after_some_initialisations(tokenizer):
    maker = DrillMaker(tokenizer, COMPACT, [VIEW], seed=0)
    config = WarmupConfig(hidden_size=64, layers=2, basic_steps=1, steps=1, drill_tokens=500)
    run = SFTSequence((5, 6, 7), (1.0, 1.0, 1.0))
    with pytest.raises(ConfigError, match=r"take off within 1 steps.*basic_steps"):
        warm_up(building(config, tokenizer), lambda: run, maker, config)


def building(config, tokenizer):
    return lambda seed: build_model(config, tokenizer, max_context_tokens=600, seed=seed)


def test_the_loss_of_runs_is_plain_weighted_cross_entropy(tokenizer):
    model = build_model(
        WarmupConfig(hidden_size=64, layers=2), tokenizer, max_context_tokens=600, seed=0
    )
    batch = [
        SFTSequence((5, 6, 7, 8), (0.0, 1.0, 0.0, 0.5)),
        SFTSequence((9, 10, 11), (1.0, 0.0, 1.0)),
    ]
    expected = torch.zeros(())
    for sequence in batch:
        logits = model(torch.tensor([sequence.token_ids])).logits[0]
        for at, weight in enumerate(sequence.weights[1:]):
            log_p = logits[at].log_softmax(-1)[sequence.token_ids[at + 1]]
            expected = expected - weight * log_p / 2.5
    with torch.no_grad():
        assert float(sft_batch_loss(model, batch)) == pytest.approx(float(expected), rel=1e-2)


def test_batches_of_drills_come_in_few_shapes(maker):
    config = WarmupConfig(drill_tokens=4000)
    sizes = {len(drill_batch(maker, stage, config)) for stage in range(len(maker.stages))}
    assert all(size % 8 == 0 for size in sizes)


def test_the_later_stages_can_be_left_out_and_the_basic_ones_cannot(tokenizer):
    maker = DrillMaker(tokenizer, COMPACT, [VIEW], seed=0, n_stages=9)
    assert [name for name, _ in maker.stages][-1] == "more code, one strange token"
    with pytest.raises(ConfigError, match=r"drill_stages from 5 to 12, found 4"):
        DrillMaker(tokenizer, COMPACT, [VIEW], seed=0, n_stages=4)


def test_no_views_is_an_error_that_says_what_to_do(tokenizer):
    with pytest.raises(ConfigError, match=r"job\.tasks"):
        DrillMaker(tokenizer, COMPACT, [], seed=0)
