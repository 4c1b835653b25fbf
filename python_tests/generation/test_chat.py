"""A chat whose turns come from a script."""

import pytest

from tad_ext.jobs.generate.run import generate
from tad_ext.jobs.generate.session import Session


@pytest.fixture
def chat(settings, monkeypatch):
    """chat(line or exception, ...) types these, and gives the token ids of every conversation that was decoded;
    the answers of the numbers in `stopped` are stopped by Ctrl-C.
    """
    stream, seen = Session.stream, []

    def run(*turns, stopped=(), **changes):
        def watching(self, prompts, *arguments):
            seen.append(prompts)
            if len(seen) - 1 in stopped:
                raise KeyboardInterrupt
            return stream(self, prompts, *arguments)

        script = iter([*turns, EOFError])

        def typed(_):
            turn = next(script)
            if isinstance(turn, str):
                return turn
            raise turn

        monkeypatch.setattr(Session, "stream", watching)
        monkeypatch.setattr("builtins.input", typed)
        assert generate(settings(interactive=True, **changes)) == []
        return seen

    return run


def test_the_conversation_goes_into_the_template(chat, settings, capsys):
    first, second = chat("one two", "", "three", gen_length=4, policy="topk:1")
    assert first == {0: [3, 3, 4, 5]}, "the template's one, the user's one two, the template's three"
    answers = capsys.readouterr().out.splitlines()[1:-1]
    words = {"one": 3, "two": 4, "three": 5}
    answer = [words[word] for word in answers[0].split()]
    assert second == {1: [3, 3, 4, 4, *answer, 3, 5, 5]}, "the second turn samples with a number of its own"
    assert len(answers) == 2
    [alone] = generate(settings(prompt="one two", gen_length=4))
    assert answers[0] == alone["response"]


def test_ctrl_c_stops_an_answer_and_not_the_chat(chat, capsys):
    stopped, after = chat("one", KeyboardInterrupt, "two", gen_length=4, stopped=[0])
    assert (stopped, after) == ({0: [3, 3, 5]}, {0: [3, 4, 5]}), "the stopped turn is no part of the conversation"
    out = capsys.readouterr().out
    assert "(stopped; this turn is forgotten)" in out
    assert "(Ctrl-D ends the chat)" in out


def test_the_oldest_turns_make_room(chat, capsys):
    prompts = [next(iter(prompt.values())) for prompt in chat("one two", "two", "three", gen_length=8)]
    assert max(map(len, prompts)) + 8 <= 24, "the model's positions"
    assert prompts[-1][-2:] == [5, 5]
    assert "its oldest turns are forgotten" in capsys.readouterr().out


def test_a_question_that_is_too_long_costs_no_other_turn(chat):
    first, last = chat("one two", "one " * 30, "three", gen_length=4)
    assert last[1][: len(first[0]) - 1] == first[0][:-1]
    assert last[1][-2:] == [5, 5]


def test_a_question_that_cannot_be_read_is_not_the_end(chat, capsys):
    [prompt] = chat("one " * 30, "two <mask>", "three", gen_length=8)
    assert prompt == {0: [3, 5, 5]}
    out = capsys.readouterr().out
    assert out.count("(not answered: prompts[0]") == 2
    assert "mask id" in out


def test_settings_arrive(chat, capsys):
    chat("one", gen_length=4, stop_strings=["one", "two", "three"])
    assert capsys.readouterr().out.splitlines()[1] == ""
