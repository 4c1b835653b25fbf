"""The folder of a run: complete at every moment, and continued by the same command."""

import json

import pytest
from earlier_versions import bytes_fingerprint
from every_family import edit_json, with_changes
from word_checkpoints import write_words_model

from tad_ext.cli import main
from tad_ext.jobs.generate.run import generate
from tad_ext.jobs.generate.session import Session
from tad_ext.models.loading import load_model
from tad_ext.models.lora import add_lora, save_adapter

PROMPTS = ["one", "two three", "three", "one one one", "two", "three two one three"]
FILES = ("generations.jsonl", "trace.jsonl", "settings.json")
SAMPLED = {"temperature": 1.0, "top_p": 0.9, "seed": 3}


@pytest.fixture
def run(settings, tmp_path):
    """run(folder, ...) generates into it; run.folder(name) is its path."""
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))

    def run(name, **changes):
        defaults = {"prompts": str(tmp_path / "prompts.txt"), "output": str(tmp_path / name), "trace": True}
        return generate(settings(**defaults | changes))

    return run


@pytest.fixture
def stopping(monkeypatch):
    """stopping(n): Ctrl-C after n responses. stopping(None): no more."""
    stream = Session.stream

    def stop_after(count):
        def stopped(self, *arguments):
            for number, row in enumerate(stream(self, *arguments)):
                if number == count:
                    raise KeyboardInterrupt
                yield row

        monkeypatch.setattr(Session, "stream", stream if count is None else stopped)

    return stop_after


def no_model(monkeypatch):
    monkeypatch.setattr("tad_ext.jobs.common.ModelSettings.load", lambda _: pytest.fail("loaded"))


def contents(folder):
    return {name: (folder / name).read_bytes() for name in FILES}


@pytest.mark.parametrize("sampling", [{}, SAMPLED], ids=["greedy", "sampled"])
def test_a_killed_run_is_continued_to_the_same_bytes(run, tmp_path, sampling):
    responses = run("whole", **sampling)
    assert [one["prompt"] for one in responses] == PROMPTS
    whole = contents(tmp_path / "whole")
    (tmp_path / "killed").mkdir()
    for name in FILES[:2]:  # as a kill leaves them: in the order of finishing, the last line half written
        lines = whole[name].splitlines(keepends=True)
        kept = [lines[5], lines[0], lines[3]] if name == "trace.jsonl" else [lines[5], lines[0]]
        (tmp_path / "killed" / name).write_bytes(b"".join(kept) + lines[2][:25])
    (tmp_path / "killed" / "settings.json").write_bytes(whole["settings.json"])
    (tmp_path / "killed" / ".tmp-0123abcd-generations.jsonl").write_text("left over")
    assert run("killed", **sampling) == responses
    assert contents(tmp_path / "killed") == whole
    assert {path.name for path in (tmp_path / "killed").iterdir()} == set(FILES)


def test_sampled_responses_differ_between_prompts_and_seeds(run, tmp_path):
    (tmp_path / "prompts.txt").write_text("one\none\none\none\n")
    first = [one["response"] for one in run("a", **SAMPLED)]
    assert len(set(first)) > 1, "or the test above could not see a wrong seed"
    assert first != [one["response"] for one in run("b", **SAMPLED | {"seed": 30})]


@pytest.mark.parametrize("sampling", [{}, SAMPLED], ids=["greedy", "sampled"])
def test_after_ctrl_c_everything_finished_is_on_disk(run, stopping, tmp_path, sampling):
    run("whole", **sampling)
    for count, done in ((0, 0), (2, 2), (3, 5)):
        stopping(count)
        with pytest.raises(KeyboardInterrupt, match=rf"^{done} of 6 responses are finished; .*same command continues"):
            run("stopped", **sampling)
        lines = (tmp_path / "stopped" / "generations.jsonl").read_text().splitlines()
        assert len(lines) == done
    stopping(None)
    run("stopped", **sampling)
    assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")


def test_a_response_is_written_when_it_is_finished(run, monkeypatch, tmp_path):
    stream, counts = Session.stream, []

    def counting(self, *arguments):
        for row in stream(self, *arguments):
            counts.append([len((tmp_path / "out" / name).read_text().splitlines()) for name in FILES[:2]])
            yield row

    monkeypatch.setattr(Session, "stream", counting)
    run("out")
    assert counts == [[count, count] for count in range(6)]


def test_ctrl_c_is_one_line_on_the_command_line(stopping, instruct, tmp_path, capsys):
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    stopping(4)
    argv = ["generate", "--model", str(instruct), "--prompts", str(tmp_path / "prompts.txt"), "--gen-length", "8"]
    assert main([*argv, "--block-length", "4", "--output", str(tmp_path / "out")]) == 130
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("tad generate: stopped: 4 of 6 responses are finished; they are in ")
    stopping(1)
    assert main([*argv, "--block-length", "4", "--policy", "topk:1"]) == 130
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 1, "without a folder, what is finished is printed"
    assert err.endswith("1 of 6 responses are finished; with --output, the same command would continue\n")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"policy": "topk:2"}, "made with policy = 'topk:1', this run has 'topk:2'"),
        ({"temperature": 0.5}, r"made with temperature = 0.0, this run has 0.5"),
        ({"cache": "dual"}, "made with cache = 'none', this run has 'dual'"),
        ({"stop_strings": ["two"]}, r"made with stop_strings = \[\], this run has \['two'\]"),
        ({"trace": False}, "made with trace = True, this run has False"),
        ({"chat": False}, "made with chat = True, this run has False"),
    ],
)
def test_a_folder_of_other_settings_is_refused(run, monkeypatch, tmp_path, changes, message):
    run("out")
    before = contents(tmp_path / "out")
    no_model(monkeypatch)
    with pytest.raises(ValueError, match=f"output: the responses in .*out' were {message}"):
        run("out", **changes)
    assert contents(tmp_path / "out") == before


def test_a_folder_of_before_a_setting_was_there_is_continued(run, monkeypatch, tmp_path):
    run("out")
    file = tmp_path / "out" / "settings.json"
    older = json.loads(file.read_text())
    del older["infill"], older["stop_strings"]
    file.write_text(json.dumps(older))
    no_model(monkeypatch)
    assert len(run("out")) == len(PROMPTS)
    with pytest.raises(ValueError, match=r"made with stop_strings = \[\], this run has \['two'\]"):
        run("out", stop_strings=["two"])


def test_another_model_or_template_is_refused(run, settings, instruct, tmp_path):
    run("out")
    other = write_words_model(tmp_path / "other", max_positions=32)
    with pytest.raises(ValueError, match="with another model: max_position_embeddings 24, this model's is 32; choose"):
        run("out", model=str(other))
    same = write_words_model(tmp_path / "same", chat_template="{{ 'one' }}")
    with pytest.raises(ValueError, match="made with chat_template = '"):
        run("out", model=str(same))


def test_a_reformatted_model_is_the_same_and_another_one_may_be_insisted_on(run, tmp_path):
    model = write_words_model(tmp_path / "model")
    run("out", model=str(model))
    noted = json.loads((tmp_path / "out" / "settings.json").read_text())
    edit_json(model / "config.json", with_changes({"use_cache": True, "dtype": None}))
    run("out", model=str(model))
    for older in (bytes_fingerprint(model), noted["model_identity"]):  # as an earlier version has it, and as this one
        edit_json(tmp_path / "out" / "settings.json", lambda settings, older=older: as_noted(settings, older))
        run("out", model=str(model))
    edit_json(model / "config.json", with_changes({"rms_norm_eps": 0.125}))
    (tmp_path / "out" / "trace.jsonl").unlink()  # so that all is decoded again
    for _ in range(2):
        with pytest.raises(ValueError, match=r"with another model: rms_norm_eps 1e-06, this model's is 0\.125; choose"):
            run("out", model=str(model))
        run("out", model=str(model), allow_other_model=True)
    edit_json(model / "config.json", with_changes({"rms_norm_eps": 1e-6, "eos_token_ids": [1, 2]}))
    with pytest.raises(ValueError, match=r"made with eos_token_ids = \[1\], this run has \[1, 2\]"):
        run("out", model=str(model))


def as_noted(settings, model):
    settings.pop("model_identity", None)
    settings["model_fingerprint" if isinstance(model, str) else "model_identity"] = model


def test_an_adapter_of_other_settings_is_another(run, settings, tmp_path):
    base, folder = settings(prompt="one").model, tmp_path / "adapter"
    save_adapter(add_lora(load_model(base), rank=2, alpha=2.0, target_modules=["q_proj"]), folder)
    run("out", adapter=str(folder))
    edit_json(folder / "adapter_config.json", with_changes({"lora_alpha": 4}))
    with pytest.raises(ValueError, match="adapter_fingerprint"):
        run("out", adapter=str(folder))


def test_settings_that_change_nothing_may_differ(run, stopping, tmp_path):
    run("whole")
    stopping(2)
    with pytest.raises(KeyboardInterrupt):
        run("out")
    stopping(None)
    run("out", batch_size=5, device="cpu")
    assert (tmp_path / "out" / "generations.jsonl").read_bytes() == contents(tmp_path / "whole")["generations.jsonl"]


def test_other_prompts_are_refused_and_more_are_answered(run, monkeypatch, tmp_path):
    run("out")
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS[:5]))
    with pytest.raises(ValueError, match=r"prompts: .*out' answers prompt number 5, this run has 5 only"):
        run("out")
    (tmp_path / "prompts.txt").write_text("\n".join(["three", *PROMPTS[1:]]))
    with pytest.raises(ValueError, match=r"prompts: number 0 of .*out' is 'one', of this run 'three'"):
        run("out")
    (tmp_path / "prompts.txt").write_text("\n".join([*PROMPTS, "two two"]))
    assert [one["prompt"] for one in run("out")] == [*PROMPTS, "two two"]
    lines = (tmp_path / "out" / "generations.jsonl").read_text().splitlines()
    assert [json.loads(line)["index"] for line in lines] == list(range(7))


def test_a_finished_run_needs_no_model(run, monkeypatch, tmp_path):
    responses = run("out")
    no_model(monkeypatch)
    assert run("out") == responses


def test_one_prompt_is_continued_likewise(settings, tmp_path, monkeypatch, capsys):
    one = settings(prompt="one two", output=str(tmp_path / "out"))
    responses = generate(one)
    no_model(monkeypatch)
    assert generate(one) == responses
    assert capsys.readouterr().out == 2 * (responses[0]["response"] + "\n")


@pytest.mark.parametrize(
    "line", ["nonsense", "[]", "{}", '{"index": "0"}', '{"index": -1}', '{"index": 0}\n{"index": 0}']
)
def test_lines_of_something_else_are_named(run, tmp_path, line):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "generations.jsonl").write_text(line + "\n")
    with pytest.raises(ValueError, match=r"generations.jsonl, line \d is not what tad generate writes"):
        run("out")
    assert (tmp_path / "out" / "generations.jsonl").read_text() == line + "\n"


def test_responses_of_unknown_settings_are_refused(run, tmp_path):
    run("out")
    (tmp_path / "out" / "settings.json").write_text("[1")
    with pytest.raises(ValueError, match=r"output: .* but .*settings\.json is not a JSON object: .*; choose another"):
        run("out")
    (tmp_path / "out" / "settings.json").unlink()
    with pytest.raises(ValueError, match=r"output: .* but .*settings\.json is not a JSON object: .*No such file"):
        run("out")
