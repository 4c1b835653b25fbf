"""Hand-worked decodes: which forward reveals which position, under each schedule and with end-of-sequence tokens."""

import pytest

from tad_ext.decoding import ConfidenceThreshold, DecodeConfig, EntropyThreshold, TopK, decode

EOS = 9


def reveal_steps(model, **settings):
    result = decode(model, [[1]], DecodeConfig(gen_length=len(model.confidences), **settings))
    assert result.forwards.tolist() == [result.reveal_step.max()] == [len(model.calls)]
    return result.reveal_step[0].tolist()


def test_block_by_block(scripted_model):
    assert reveal_steps(scripted_model([0.6, 0.9, 0.95, 0.7]), block_length=2) == [2, 1, 3, 4]
    assert reveal_steps(scripted_model([0.6, 0.9, 0.95, 0.7]), block_length=4) == [4, 2, 1, 3]
    assert reveal_steps(scripted_model([0.6, 0.9, 0.95, 0.7]), block_length=1) == [1, 2, 3, 4]


def test_k_tokens_per_forward_never_leave_the_block(scripted_model):
    assert reveal_steps(scripted_model([0.6, 0.9, 0.95, 0.7]), block_length=2, policy=TopK(2)) == [1, 1, 2, 2]
    assert reveal_steps(scripted_model([0.9, 0.6, 0.5, 0.95, 0.7, 0.8]), block_length=3, policy=TopK(2)) == [
        1, 1, 2, 3, 4, 3
    ]  # fmt: skip


def test_thresholds_with_forced_progress(scripted_model):
    confidences, policy = [0.6, 0.9, 0.95, 0.7], ConfidenceThreshold(0.8)
    assert reveal_steps(scripted_model(confidences), block_length=4, policy=policy) == [3, 1, 1, 2]
    assert reveal_steps(scripted_model(confidences), block_length=2, policy=policy) == [2, 1, 3, 4]
    # Probability p and 11 times (1 - p) / 11: 0.18 nats at 0.975, 0.56 at 0.9, 1.33 at 0.7, 1.63 at 0.6.
    confidences, policy = [0.6, 0.9, 0.975, 0.7], EntropyThreshold(1.0)
    assert reveal_steps(scripted_model(confidences), block_length=4, policy=policy) == [3, 1, 1, 2]
    confidences, policy = [0.6, 0.9, 0.975, 0.7], EntropyThreshold(0)
    assert reveal_steps(scripted_model(confidences), block_length=4, policy=policy) == [4, 2, 1, 3]


def test_a_block_is_added_at_half_of_the_newest_one(scripted_model):
    # Forward 1: column 1 of block 0, which is half: block 1 is added. Forward 2: the best of both is column 2; block 0
    # got nothing, so column 0 too; block 2 is added. Forward 3: column 4, and 3 by force. Then 5.
    model = scripted_model([0.6, 0.9, 0.95, 0.5, 0.8, 0.7])
    assert reveal_steps(model, block_length=2, block_add_threshold=0.5) == [2, 1, 2, 3, 3, 4]


@pytest.mark.parametrize(
    ("forced_progress", "add", "decoded", "steps"),
    [
        # Nothing is ever accepted. "block": the first unfinished block reveals its best column, one a forward.
        ("block", 1.0, 1.0, [2, 1, 3, 4, 5, 6]),
        ("block", 0.5, 1.0, [2, 1, 3, 4, 5, 6]),
        ("block", 0.5, 0.5, [2, 1, 3, 4, 5, 6]),
        ("block", 0.0, 0.0, [2, 1, 3, 4, 5, 6]),
        # "row": forward 1 has column 1, and block 1 is added. Forward 2: the row's best is column 2, and block 0 its
        # column 0. Forward 3: column 4 is the best of the row, block 1 is the first with masks, column 3. Then 5.
        ("row", 1.0, 1.0, [2, 1, 3, 4, 5, 6]),
        ("row", 0.5, 1.0, [2, 1, 2, 3, 3, 4]),
        ("row", 0.5, 0.5, [2, 1, 2, 3, 3, 4]),
        # "blocks": block 1 is fully active as soon as block 0 is half revealed (0.5) or is there at all (0), or else
        # complete (1).
        ("blocks", 1.0, 1.0, [2, 1, 3, 4, 5, 6]),
        ("blocks", 0.5, 1.0, [2, 1, 3, 4, 5, 6]),
        ("blocks", 0.5, 0.5, [2, 1, 2, 3, 3, 4]),
        ("blocks", 0.0, 0.0, [2, 1, 2, 3, 3, 4]),
    ],
)
def test_forced_progress(scripted_model, forced_progress, add, decoded, steps):
    model = scripted_model([0.6, 0.9, 0.95, 0.5, 0.8, 0.7])
    settings = {"block_add_threshold": add, "decoded_token_threshold": decoded, "policy": EntropyThreshold(0)}
    assert reveal_steps(model, block_length=2, forced_progress=forced_progress, **settings) == steps


def test_an_added_block_may_reveal_before_it_is_fully_active(scripted_model):
    # Block 1 is not fully active in forward 2, but its column 2 is confident enough to be accepted.
    model = scripted_model([0.6, 0.9, 0.95, 0.5])
    settings = {"block_add_threshold": 0.5, "policy": ConfidenceThreshold(0.8)}
    assert reveal_steps(model, block_length=2, **settings) == [2, 1, 2, 3]


def test_the_model_is_asked_for_eligible_positions_only(scripted_model):
    model = scripted_model([0.6, 0.9, 0.95, 0.7])
    reveal_steps(model, block_length=2)
    assert [call.positions.tolist() for call in model.calls] == [[[1, 2]], [[1]], [[3, 4]], [[4]]]
    model = scripted_model([0.6, 0.9, 0.95, 0.5, 0.8, 0.7])
    reveal_steps(model, block_length=2, block_add_threshold=0.5)
    assert [call.positions.tolist() for call in model.calls] == [[[1, 2]], [[1, 3, 4]], [[4, 5, 6]], [[6]]]


def test_the_model_sees_the_prompt_then_the_canvas_as_it_stands(scripted_model):
    model = scripted_model([0.6, 0.9, 0.95, 0.7], tokens=[4, 5, 6, 7])
    result = decode(model, [[1]], DecodeConfig(gen_length=4, block_length=2))
    assert result.sequences == [[1, 4, 5, 6, 7]]
    assert [call.input_ids.tolist() for call in model.calls] == [
        [[1, 10, 10, 10, 10]],
        [[1, 10, 5, 10, 10]],
        [[1, 4, 5, 10, 10]],
        [[1, 4, 5, 6, 10]],
    ]


def test_eos_fills_what_follows_and_the_row_waits_for_what_stands_before(scripted_model):
    model = scripted_model([0.6, 0.9, 0.8, 0.7], tokens=[4, EOS, 6, 7])
    result = decode(model, [[1]], DecodeConfig(gen_length=4, block_length=4))
    assert result.sequences == [[1, 4, EOS, EOS, EOS]]
    assert result.reveal_step.tolist() == [[2, 1, 1, 1]]
    assert result.forwards.tolist() == [2]
    assert result.response_lengths.tolist() == [2]
    assert result.responses() == [[4]]
    assert result.tokens_per_forward.tolist() == [1.0]


def test_eos_overwrites_what_was_revealed_behind_it(scripted_model):
    model = scripted_model([0.5, 0.6, 0.9, 0.7], tokens=[4, EOS, 6, 7])
    result = decode(model, [[1]], DecodeConfig(gen_length=4, block_length=4))
    assert result.sequences == [[1, 4, EOS, EOS, EOS]]
    assert result.reveal_step.tolist() == [[4, 3, 3, 3]]


def test_eos_ends_the_row_before_later_blocks(scripted_model):
    model = scripted_model([0.5, 0.6, 0.9, 0.7], tokens=[4, EOS, 6, 7])
    result = decode(model, [[1]], DecodeConfig(gen_length=4, block_length=2))
    assert result.reveal_step.tolist() == [[2, 1, 1, 1]]
    assert result.responses() == [[4]]


def test_without_stopping_eos_is_a_token_like_any_other(scripted_model):
    model = scripted_model([0.5, 0.6, 0.9, 0.7], tokens=[4, EOS, 6, 7])
    result = decode(model, [[1]], DecodeConfig(gen_length=4, block_length=4, stop_at_eos=False))
    assert result.sequences == [[1, 4, EOS, 6, 7]]
    assert result.reveal_step.tolist() == [[4, 3, 1, 2]]
    assert result.forwards.tolist() == [4]
    assert result.response_lengths.tolist() == [2]  # counted to the first end of sequence all the same
    assert result.responses() == [[4]]
    assert result.tokens_per_forward.tolist() == [0.5]


def test_the_config_may_name_other_eos_ids(scripted_model):
    model = scripted_model([0.9, 0.8, 0.7, 0.6], tokens=[4, 5, 6, 7])
    result = decode(model, [[1]], DecodeConfig(gen_length=4, block_length=4, eos_token_ids=[8, 5]))
    assert result.sequences == [[1, 4, 5, 5, 5]]
    assert result.eos_token_ids == (8, 5)
    assert result.responses() == [[4]]


def test_eos_as_the_first_token_is_an_empty_response(scripted_model):
    model = scripted_model([0.9, 0.8], tokens=[EOS, 5])
    result = decode(model, [[1]], DecodeConfig(gen_length=2, block_length=2))
    assert result.responses() == [[]]
    assert result.response_lengths.tolist() == [1]
    assert result.forwards.tolist() == [1]
