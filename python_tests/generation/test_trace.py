"""The order of reveals: written with the responses, read back, and drawn."""

import json
import os

import matplotlib.image
import pytest
from word_checkpoints import write_words_model

from tad_ext.cli import main
from tad_ext.decoding import decode
from tad_ext.decoding.traces import Trace, read_traces
from tad_ext.jobs.generate.run import generate
from tad_ext.jobs.plot_trace.run import plot_traces
from tad_ext.models.loading import load_model


def trace(index=0, positions=8, block_length=4, response_length=None, texts=None, prompt_positions=0):
    return Trace(
        index=index,
        token_ids=[3] * positions,
        token_texts=texts or ["one"] * positions,
        reveal_step=[1 + (7 * place) % positions for place in range(positions)],
        forwards=positions,
        block_length=block_length,
        response_length=response_length or positions,
        prompt_positions=prompt_positions,
    )


def write(path, traces):
    path.write_text("".join(json.dumps(vars(one)) + "\n" for one in traces))
    return path


def size(path):
    """Width and height of a PNG that can be read back."""
    height, width, _ = matplotlib.image.imread(path, format="png").shape
    return width, height


def test_a_trace_is_what_decoding_did(settings, tmp_path):
    (tmp_path / "prompts.txt").write_text("one two\nthree\none\ntwo two\n")
    changes = {"trace": True, "chat": False, "stop_at_eos": True, "temperature": 2.0}
    config = settings(prompts=str(tmp_path / "prompts.txt"), output=str(tmp_path / "out"), **changes)
    responses = generate(config)
    assert min(one["tokens"] for one in responses) < 8, "some response ends before the canvas does"
    result = decode(load_model(config.model), [[3, 4], [5], [3], [4, 4]], config.decoding)
    traces = read_traces(tmp_path / "out")
    assert traces == read_traces(tmp_path / "out" / "trace.jsonl")
    words = ["<mask>", "<eos>", "<unk>", "one", "two", "three"]
    for index, one in enumerate(traces):
        assert one.index == index
        assert list(one.token_ids) == result.canvases()[index]
        assert list(one.token_texts) == [words[token] for token in one.token_ids]
        assert list(one.reveal_step) == result.reveal_step[index].tolist()
        assert (one.forwards, one.response_length) == (responses[index]["forwards"], responses[index]["tokens"])
        assert one.block_length == 4


def test_of_a_model_with_blocks_of_its_own(tmp_path):
    """A prompt of 7 tokens takes a block of 5, and 2 positions of the next, in which the canvas begins."""
    folder, out = write_words_model(tmp_path / "words", causal_block_length=5), tmp_path / "out"
    arguments = ["--prompt", "one two three two two one one", "--no-chat", "--gen-length", "10", "--block-length", "5"]
    assert main(["generate", "--model", str(folder), "--output", str(out), "--trace", *arguments]) == 0
    (one,) = read_traces(out)
    assert (one.prompt_positions, len(one.reveal_step)) == (2, 10)
    assert main(["plot", "trace", "--input", str(out), "--output", str(tmp_path / "trace.png"), "--prompt", "0"]) == 0


def test_the_command_draws_it(settings, tmp_path, capsys):
    generate(settings(prompt="one", output=str(tmp_path / "out"), trace=True))
    capsys.readouterr()
    assert main(["plot", "trace", "--input", str(tmp_path / "out"), "--output", str(tmp_path / "trace.png")]) == 0
    assert min(size(tmp_path / "trace.png")) > 300
    assert capsys.readouterr().out == f"written to {tmp_path / 'trace.png'}\n"


@pytest.mark.parametrize(
    "traces",
    [
        [trace()],
        [trace(positions=4)],
        [trace(positions=1, block_length=1)],
        [trace(response_length=1), trace(1, response_length=3)],
        [trace(index, positions=256, block_length=32) for index in range(40)],
        [trace(positions=64, block_length=32, texts=["$x^", "\n", "\x1b", "漢", "a long token", "", " ", "<eos>"] * 8)],
        [trace(positions=8, prompt_positions=3)],
        [trace(index, positions=8, prompt_positions=index) for index in range(4)],
    ],
    ids=["one", "one block", "one token", "short", "many", "strange texts", "own blocks", "many of them"],
)
def test_every_shape_can_be_drawn(tmp_path, traces):
    plot_traces(traces, tmp_path / "trace.png")
    assert min(size(tmp_path / "trace.png")) > 300
    assert [path.name for path in tmp_path.iterdir()] == ["trace.png"]


def test_what_is_drawn(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    figures = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **o: figures.append(self) or save(self, *a, **o))
    plot_traces([trace(0, response_length=6), trace(3)], tmp_path / "rows.png")
    axes, bar = figures[0].axes
    drawn = axes.images[0].get_array()
    assert drawn.tolist() == [[1, 8, 7, 6, 5, 4, None, None], [1, 8, 7, 6, 5, 4, 3, 2]]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["0", "3"]
    assert [line.get_xdata()[0] for line in axes.lines] == [3.5, 3.5], "between the two blocks"
    assert len(axes.texts) == 14, "a token in every cell but the grey ones"
    assert bar.get_ylabel() == "step that revealed the token"
    plot_traces([trace()], tmp_path / "one.png")
    assert figures[1].axes[0].images[0].get_array().tolist() == [[1, 8, 7, 6], [5, 4, 3, 2]], "a row per block"
    plot_traces([trace(prompt_positions=3)], tmp_path / "own.png")
    drawn = figures[2].axes[0].images[0].get_array().tolist()
    assert drawn == [[None, None, None, 1], [8, 7, 6, 5], [4, 3, 2, None]], "the prompt ends in the first one"


def test_some_of_the_prompts(tmp_path, capsys):
    write(tmp_path / "trace.jsonl", [trace(index) for index in (2, 0, 1)])
    argv = ["plot", "trace", "--input", str(tmp_path), "--output", str(tmp_path / "trace.png")]
    assert main([*argv, "--limit", "2"]) == 0
    assert capsys.readouterr().out.endswith("trace.png, the first 2 of 3 prompts\n")
    assert main([*argv, "--prompt", "2"]) == 0
    assert main([*argv, "--prompt", "7"]) == 2
    assert "prompt is 7, expected one of the 3 that" in capsys.readouterr().err
    assert main([*argv, "--limit", "0"]) == 2


@pytest.mark.parametrize("output", [".", "nowhere/trace.png", "pipe", "/proc/trace.png"])
def test_an_output_that_cannot_be_written_is_named_before_anything_is_read(tmp_path, monkeypatch, capsys, output):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    assert main(["plot", "trace", "--input", "nothing", "--output", output]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"tad plot trace: error: output must be a file that can be written, got '{output}' (")
    assert err.count("\n") == 1


def test_missing_and_foreign_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"input is '.*nothing', which is not a file"):
        read_traces(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match=r"a folder without trace.jsonl"):
        read_traces(tmp_path)
    with pytest.raises(ValueError, match="different"):
        read_traces(write(tmp_path / "mixed.jsonl", [trace(), trace(1, positions=4)]))
    good = vars(trace())
    for changes in (
        {"prompt": "one"}, {"index": -1}, {"index": True}, {"forwards": 0}, {"block_length": 3}, {"reveal_step": [1]},
        {"index": 2**64}, {"forwards": 2**64}, {"reveal_step": [2**64] * len(good["reveal_step"])},
        {"reveal_step": [0] * len(good["reveal_step"])},
        {"token_ids": None}, {"token_texts": [1] * 8}, {"reveal_step": ["1"] * 8},
        {"reveal_step": [], "token_ids": [], "token_texts": []},
    ):  # fmt: skip
        (tmp_path / "foreign.jsonl").write_text(json.dumps(good) + "\n" + json.dumps(good | changes) + "\n")
        with pytest.raises(ValueError, match=r"foreign.jsonl, line 2: expected a line of trace.jsonl"):
            read_traces(tmp_path / "foreign.jsonl")
