"""What the live view shows of a canvas, rendered to a recorded console."""

import io

import pytest
import torch
from rich.console import Console
from tiny_checkpoints import write_llada

from tad_ext.decoding.canvas_text import NEWEST_STYLE
from tad_ext.jobs.generate import live_view
from tad_ext.jobs.generate.live_view import LiveView, rates
from tad_ext.jobs.generate.run import generate
from tad_ext.models.loading import load_tokenizer

MASK, EOS = 0, 1


def console(height=20, width=70):
    return Console(record=True, force_terminal=True, width=width, height=height, file=io.StringIO(), highlight=False)


def words(ids):
    names = {2: "alpha", 3: "beta", 4: "\x1b[31mred"}
    return " ".join(names[token] for token in ids if token != EOS)


def view(canvas, reveal_step, decode=words, height=20, width=70):
    shown = LiveView(console(height, width), decode, MASK, [EOS])
    shown.watch([0], torch.tensor([canvas]), torch.tensor([reveal_step]))
    return shown


def rendered(shown, height=20, width=70):
    screen = console(height, width)
    screen.print(shown)
    return screen.export_text().splitlines()


def pieces(shown):
    """(text, whether it is highlighted) of each revealed piece."""
    text = shown.text()
    return [(text.plain[span.start : span.end], span.style == NEWEST_STYLE) for span in text.spans]


def test_text_masks_and_counts():
    lines = rendered(view([2, 3, 0, 0, 3, 0], [1, 1, 0, 0, 1, 0]))
    assert lines[0] == "alpha beta░░beta░"
    assert lines[1].startswith("3 tokens in 1 forwards, 3.00 per forward, ")


def test_the_newest_tokens_are_highlighted():
    shown = view([2, 3, 3, 0, 2], [1, 2, 1, 0, 2])
    assert shown.text().plain == "alpha beta beta░alpha"
    assert [piece for piece in pieces(shown) if piece[1]] == [(" beta", True), ("alpha", True)]


def test_what_stands_behind_the_end_does_not_count():
    shown = view([2, EOS, EOS, EOS], [1, 2, 2, 2])
    assert shown.text().plain == "alpha"
    assert shown.tokens() == 2


def test_characters_that_take_several_tokens(tmp_path):
    write_llada(tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    ids = tokenizer.encode("né €", add_special_tokens=False)
    assert len(ids) > 4
    for cut in range(len(ids) + 1):
        steps = [1] * cut + [2] * (len(ids) - cut)
        shown = view(ids, steps, lambda some: tokenizer.decode(some, skip_special_tokens=True))
        assert shown.text().plain == "né €"


def test_control_characters_do_not_reach_the_terminal():
    assert view([4], [1]).text().plain == " [31mred"


def test_of_a_long_canvas_the_part_around_the_first_mask_is_shown():
    canvas = [2] * 300 + [0] * 300
    lines = rendered(view(canvas, [1] * 300 + [0] * 300, height=8, width=30), height=8, width=30)
    assert len(lines) == 7
    assert any("alpha░" in line or line.startswith("░") for line in lines)
    assert any("alpha" in line for line in lines)


def test_before_the_first_forward_nothing_breaks():
    shown = LiveView(console(), words, MASK, [EOS])
    assert "0 tokens in 0 forwards" in rendered(shown)[-1]


def test_rates():
    assert rates(57, 12, 2.0) == "57 tokens in 12 forwards, 4.75 per forward, 28 tokens/s"
    assert rates(0, 0, 0.0).startswith("0 tokens in 0 forwards, 0.00 per forward, 0")


@pytest.fixture
def terminal(monkeypatch):
    """Standard output is a terminal, recorded here."""
    screen = console()
    monkeypatch.setattr(live_view, "terminal", lambda: screen)
    return screen


def test_one_prompt_is_shown_while_it_is_decoded(settings, terminal, capsys, monkeypatch):
    monkeypatch.setattr(live_view, "_SECONDS_BETWEEN_FRAMES", 0)
    [one] = generate(settings(prompt="one two"))
    drawn = terminal.file.getvalue()
    assert drawn.count("tokens in 1 forwards") >= 1
    assert "░" in drawn
    assert f"{one['tokens']} tokens in {one['forwards']} forwards" in terminal.export_text().splitlines()[-1]
    assert capsys.readouterr().out == one["response"] + "\n"


def test_without_a_terminal_there_is_the_response_only(settings, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    [one] = generate(settings(prompt="one two"))
    assert capsys.readouterr() == (one["response"] + "\n", "")


def test_files_have_a_bar_and_no_view(settings, terminal, tmp_path, capsys):
    (tmp_path / "prompts.txt").write_text("one\ntwo\n")
    responses = generate(settings(prompts=str(tmp_path / "prompts.txt")))
    out, err = capsys.readouterr()
    assert out == "".join(one["response"] + "\n" for one in responses)
    assert "2/2" in err
    assert f"2 responses; this run: {sum(one['tokens'] for one in responses)} tokens in 16 forwards, " in err
    assert terminal.file.getvalue() == ""
