"""The model that the harness asks: its answers are those of `decode` and of `log_likelihoods`, in order."""

from dataclasses import replace

import pytest

pytest.importorskip("lm_eval")

from lm_eval.api.instance import Instance
from lm_eval.api.model import CachingLM
from lm_eval.api.registry import get_model
from word_checkpoints import write_words_model

from tad_ext import DecodeConfig, decode, decode_stream, load_model, load_tokenizer
from tad_ext.evaluation import log_likelihoods
from tad_ext.evaluation.harness import TadLM
from tad_ext.evaluation.settings import HarnessSettings

DECODING = DecodeConfig(gen_length=8, block_length=4, policy="entropy:1.2", batch_size=2)


@pytest.fixture(scope="module")
def model(words):
    return load_model(words, device="cpu")


@pytest.fixture(scope="module")
def tokenizer(words):
    return load_tokenizer(words)


@pytest.fixture
def lm(model, tokenizer):
    """lm(decoding, mc_num=...): the model, as the harness has it."""

    def make(decoding=DECODING, **settings):
        return TadLM(model, tokenizer, HarnessSettings(decoding=decoding, **settings))

    return make


def generation(text, document=0, repeats=1, **arguments):
    return Instance("generate_until", {}, (text, {"until": [], **arguments}), 0, ("t", document, repeats))


def rated(*texts):
    return Instance("loglikelihood", {}, texts, 0, ("t", 0, 1))


def decoded(model, tokenizer, text, config):
    """By itself."""
    (response,) = decode(model, [tokenizer.encode(text)], config, tokenizer=tokenizer).responses()
    return tokenizer.decode(response, skip_special_tokens=True)


def test_responses_are_those_of_decode_in_the_order_of_the_requests(lm, model, tokenizer):
    texts = ["one", "three two one one two", "two three", "one one one", "two"]
    requests = [
        generation(text, document, max_gen_toks=8 if document % 2 else 4) for document, text in enumerate(texts)
    ]
    ours = lm()
    expected = [
        decoded(model, tokenizer, text, replace(DECODING, gen_length=8 if document % 2 else 4))
        for document, text in enumerate(texts)
    ]
    assert ours.generate_until(requests) == expected
    assert len(set(expected)) > 1
    alone = {document: decode(model, [tokenizer.encode(texts[document])], DECODING) for document in (1, 3)}
    took = {one.document: (one.tokens, one.forwards) for one in ours.generations}
    assert sorted(took) == [0, 1, 2, 3, 4]
    for document, result in alone.items():
        assert took[document] == (result.response_lengths.item(), result.forwards.item())


def test_a_response_ends_before_its_stop_string(lm, model, tokenizer):
    whole = decoded(model, tokenizer, "one", DECODING)
    stop = " ".join(whole.split()[2:4])
    ours = lm()
    assert ours.generate_until([generation("one", until=[stop, ""])]) == [whole.split(stop)[0]]
    assert ours.generate_until([generation("one", until=stop)]) == [whole.split(stop)[0]]
    assert ours.generations[0].tokens <= 4


@pytest.mark.parametrize(
    ("most", "task_lengths", "canvas"), [(3, False, 4), (100, False, 8), (3, True, 4), (10, True, 12)]
)
def test_how_long_a_response_may_be(lm, model, tokenizer, most, task_lengths, canvas):
    expected = decode(model, [tokenizer.encode("one")], replace(DECODING, gen_length=canvas)).responses()[0][:most]
    found = lm(task_lengths=task_lengths).generate_until([generation("one", max_gen_toks=most)])
    assert found == [tokenizer.decode(expected, skip_special_tokens=True)]


def test_the_lengths_of_preset_and_settings_are_those_of_requests_that_name_none(lm, model, tokenizer):
    assert lm().generate_until([generation("one")]) == [decoded(model, tokenizer, "one", DECODING)]


def test_samples_differ_and_depend_on_the_document_alone(lm):
    sampling = {"do_sample": True, "temperature": 3.0}
    requests = [generation("one", document, 3, **sampling) for document in (0, 1)]
    decoding = replace(DECODING, min_length=8)  # no end of sequence
    first, second, third, other = lm(decoding).generate_until([requests[0]] * 3 + [requests[1]])
    assert len({first, second, third, other}) == 4
    assert lm(decoding).generate_until([requests[1], requests[0], requests[0]]) == [other, first, second]
    other_request = generation("two", 0, **sampling)  # of the same document
    assert lm(decoding).generate_until([requests[0], other_request])[0] == first
    seeded = replace(decoding, seed=99)
    assert lm(seeded).generate_until([requests[0]]) != [first]


def test_a_request_that_fills_up_a_share_is_not_decoded_again(lm):
    request = generation("one", 0, 2, do_sample=True, temperature=3.0)
    ours = lm(replace(DECODING, min_length=8))
    first, second, *others = ours.generate_until([request] * 4)
    assert others == [first, second]
    assert [(one.document, one.sample) for one in ours.generations] == [(0, 0), (0, 1)]


def test_a_request_that_does_not_sample_takes_no_temperature(lm):
    assert lm().generate_until([generation("one", do_sample=False, temperature=1.0)]) == lm().generate_until(
        [generation("one")]
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_beams": 4}, r"generation_kwargs of task 't' are \{'num_beams': 4\}; expected some of do_sample"),
        ({"do_sample": True, "temperature": 1.0, "top_p": 2.0}, "top_p must be a finite number"),
    ],
)
def test_what_a_request_cannot_ask_for(lm, arguments, message):
    with pytest.raises((TypeError, ValueError), match=message.replace("a finite number", ".*")):
        lm().generate_until([generation("one"), generation("one", **arguments)])


def test_the_beginning_of_a_prompt_that_is_too_long_is_left_out(lm, caplog):
    ours = lm()
    text = " ".join(["one", "two", "three", "two"] * 8)
    assert ours.generate_until([generation(text)]) == lm().generate_until([generation(" ".join(text.split()[-16:]))])
    (found,) = ours.loglikelihood([rated(text, " three")])
    assert found == lm().loglikelihood([rated(" ".join(text.split()[-23:]), " three")])[0]
    assert ours.truncated == 2
    assert caplog.messages.count("a prompt of 32 tokens is too long for the model, its beginning is left out") == 1


def test_of_a_model_with_blocks_of_its_own_a_prompt_has_room_in_whole_ones(tmp_path):
    """24 positions are 4 blocks of 5, of which a canvas of 10 takes two."""
    folder = write_words_model(tmp_path / "words", causal_block_length=5)
    decoding = DecodeConfig(gen_length=10, block_length=5)
    ours = TadLM(load_model(folder), load_tokenizer(folder), HarnessSettings(decoding=decoding))
    text = ["one", "two", "three", "two"] * 8
    long, cut = ours.generate_until([generation(" ".join(text)), generation(" ".join(text[-10:]))])
    assert long == cut
    assert ours.truncated == 1
    by_name = TadLM.create_from_arg_obj({"pretrained": str(folder)}, {"batch_size": "auto"}).settings.decoding
    assert (by_name.block_length, by_name.gen_length) == (5, 260)


def test_the_harness_caches_responses_as_they_come(lm, tmp_path):
    requests = [generation("one"), generation("two three", 1)]
    ours = lm()
    (first,) = CachingLM(ours, str(tmp_path / "cache.db")).generate_until(requests[:1])
    texts = CachingLM(ours, str(tmp_path / "cache.db")).generate_until(requests)
    assert texts[0] == first
    assert [one.document for one in ours.generations] == [0, 1]
    answers = [rated("one", " two"), rated("one", " three two")]
    found = CachingLM(ours, str(tmp_path / "cache.db")).loglikelihood(answers)
    ours.model = None
    assert CachingLM(ours, str(tmp_path / "cache.db")).loglikelihood(answers) == found


def test_a_run_that_is_stopped_keeps_what_was_finished(lm, tmp_path, monkeypatch):
    def stopped(*arguments, **options):
        yield next(decode_stream(*arguments, **options))
        raise KeyboardInterrupt

    ours = lm(replace(DECODING, batch_size=1))
    cached = CachingLM(ours, str(tmp_path / "cache.db"))
    requests = [generation(text, document) for document, text in enumerate(("one", "two three", "two"))]
    with monkeypatch.context() as patched:
        patched.setattr("tad_ext.evaluation.harness.model.decode_stream", stopped)
        with pytest.raises(KeyboardInterrupt):
            cached.generate_until(requests)
    assert cached.generate_until(requests) == lm().generate_until(requests)
    assert len(ours.generations) == 3  # none of them twice


def test_log_likelihoods_are_the_estimators(lm, model, tokenizer):
    requests = [rated("one two", " three"), rated("one", " two one two one two one two one"), rated("", "one three")]
    pairs = [([3, 4], [5]), ([3], [4, 3] * 4), ([tokenizer.eos_token_id], [3, 5])]
    settings = {"mc_num": 12, "seed": 5}
    expected = dict(log_likelihoods(model, pairs, **settings))
    found = lm(replace(DECODING, seed=5), mc_num=12).loglikelihood(requests)
    assert [value for value, _ in found] == pytest.approx([expected[number] for number in range(3)], rel=1e-5)
    assert [greedy for _, greedy in lm(check_greedy=False).loglikelihood(requests)] == [False] * 3
    greedy = max(("one", "two", "three"), key=lambda word: lm().loglikelihood([rated("one two", f" {word}")])[0][0])
    assert lm().loglikelihood([rated("one two", f" {greedy}")])[0][1]


def test_an_answer_that_merges_with_the_prompt_is_rated_all_the_same(llada):
    model, tokenizer = load_model(llada, device="cpu"), load_tokenizer(llada)
    prompt, answer = tokenizer("Ann")["input_ids"], tokenizer("a has")["input_ids"]
    assert len(tokenizer("Anna has")["input_ids"]) == len(prompt)  # so that the harness has none left
    ours = TadLM(model, tokenizer, HarnessSettings(mc_num=8))
    [(_, expected)] = log_likelihoods(model, [(prompt, answer)], mc_num=8)
    [(found, greedy), (nothing, _)] = ours.loglikelihood([rated("Ann", "a has"), rated("Ann", "")])
    assert (found, greedy, nothing) == (pytest.approx(expected, rel=1e-5), False, 0.0)


def test_a_long_text_is_rated_in_windows(lm, model, tokenizer):
    ids = [3, 4, 5, 4] * 8  # 24 positions: the end of a text, 23 tokens; then what is left, behind all that has room
    text = tokenizer.decode(ids)
    windows = [([tokenizer.eos_token_id], ids[:23]), (ids[8:23], ids[23:])]
    expected = sum(value for _, value in log_likelihoods(model, windows, mc_num=8))
    request = Instance("loglikelihood_rolling", {}, (text,), 0, ("t", 0, 1))
    assert lm(mc_num=8).loglikelihood_rolling([request]) == pytest.approx([expected], rel=1e-5)


def test_chat_templates(llada):
    tokenizer = load_tokenizer(llada)
    lm = TadLM(load_model(llada, device="cpu"), tokenizer)
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How many?"}]
    text = lm.apply_chat_template(messages)
    assert text == tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert lm.tok_encode(text) == tokenizer.encode(text, add_special_tokens=False)
    begun = lm.apply_chat_template([*messages, {"role": "assistant", "content": "There are"}], False)
    assert begun.endswith("There are")
    assert lm.chat_template(True) == tokenizer.chat_template
    assert lm.tokenizer_name.startswith("llada-")
    assert lm.prefix_token_id == tokenizer.bos_token_id
    tokenizer.chat_template = None
    with pytest.raises(ValueError, match="apply_chat_template is true, and the model's tokenizer has no chat template"):
        lm.apply_chat_template(messages)
    tokenizer.chat_template = "{{ raise_exception('no system messages') }}"
    with pytest.raises(ValueError, match="refuses messages of the roles system, user: no system messages"):
        lm.apply_chat_template(messages)


def test_special_tokens_are_added_to_plain_text_alone(llada):
    tokenizer = load_tokenizer(llada)
    calls = []

    class Spy:
        added_tokens_decoder = tokenizer.added_tokens_decoder

        def encode(self, text, add_special_tokens):
            calls.append((text, add_special_tokens))
            return [1]

    lm = TadLM(load_model(llada, device="cpu"), Spy())
    for text in ("How many?", "<|startoftext|>How many?", "<|start_header_id|>user"):
        lm.tok_encode(text)
    assert [added for _, added in calls] == [True, False, False]


def test_the_harness_makes_it_from_its_arguments(words):
    registered = get_model("tad")
    assert registered is TadLM
    made = registered.create_from_arg_string(
        f"pretrained={words},preset=tad,gen_length=8,block_length=4,mc_num=16,stop_at_eos=False",
        {"batch_size": "4", "device": "cuda:0", "max_batch_size": None},
    )
    assert made.settings.mc_num == 16
    decoding = made.settings.decoding
    assert (str(decoding.policy), decoding.gen_length, decoding.batch_size, decoding.stop_at_eos) == (
        "entropy:0.5", 8, 4, False,
    )  # fmt: skip
    assert registered.create_from_arg_obj({"pretrained": str(words)}, {"batch_size": "auto"}).settings.mc_num == 128
    with pytest.raises(TypeError, match=r"HarnessSettings has no setting 'mc_nun'; did you mean mc_num\?"):
        registered.create_from_arg_string(f"pretrained={words},mc_nun=16", {})
    with pytest.raises(ValueError, match="pretrained must be a checkpoint folder, got None"):
        registered.create_from_arg_string("mc_num=16", {})
