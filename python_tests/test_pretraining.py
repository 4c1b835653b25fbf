"""Base training: the objective is what the equation says, runs repeat themselves, the checkpoint is whole or absent."""

import json
from dataclasses import fields, replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tad_ext.data.tasks.arithmetic import arithmetic_tokenizer
from tad_ext.jobs.pretrain import run as pretraining
from tad_ext.jobs.pretrain.config import PretrainConfig
from tad_ext.jobs.pretrain.run import Batch, diffusion_loss, make_batch, pretrain
from tad_ext.models.loading import load_model, load_tokenizer, save_model

MASK, EOS, PAD = 21, 22, 23


@pytest.fixture
def config(tmp_path: Path) -> PretrainConfig:
    return PretrainConfig(
        output=str(tmp_path / "base"),
        steps=6,
        batch_size=8,
        hidden_size=16,
        layers=1,
        heads=2,
        log_every=4,
        device="cpu",
    )


def batch_of(responses: torch.Tensor, prompts: list[list[int]], seed: int = 0, min_mask_ratio: float = 0.03) -> Batch:
    return make_batch(
        prompts, responses, mask_token_id=MASK, pad_token_id=PAD, min_mask_ratio=min_mask_ratio,
        generator=torch.Generator().manual_seed(seed),
    )  # fmt: skip


def test_writes_a_checkpoint_and_its_curve(config: PretrainConfig) -> None:
    model = pretrain(config)
    loaded, tokenizer = load_model(config.output, device="cpu"), load_tokenizer(config.output)
    ids = torch.tensor([[1, 2, 3, MASK]])
    assert torch.equal(loaded(ids).logits, model(ids).logits)
    assert not model.training
    assert (loaded.config.mask_token_id, loaded.config.eos_token_ids) == (MASK, [EOS])
    assert loaded.config.suppress_token_ids == [PAD]
    assert tokenizer.mask_token_id == MASK
    report = json.loads(Path(config.output, "training.json").read_text())
    assert [point["step"] for point in report["curve"]] == [4, 6]
    assert report["settings"]["steps"] == 6
    assert [entry.name for entry in Path(config.output).parent.iterdir()] == ["base"]


def test_same_settings_same_weights(config: PretrainConfig) -> None:
    outputs = [f"{config.output}{name}" for name in "abc"]
    for state, (output, seed) in enumerate(zip(outputs, (0, 0, 1), strict=True)):
        torch.manual_seed(state)  # must not matter
        before = torch.get_rng_state()
        pretrain(replace(config, output=output, seed=seed))
        assert torch.equal(torch.get_rng_state(), before)
    first, second, other = (load_file(Path(output, "model.safetensors")) for output in outputs)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["lm_head.weight"], other["lm_head.weight"])


def test_learns_something(config: PretrainConfig) -> None:
    pretrain(replace(config, steps=150, batch_size=16, hidden_size=32, log_every=25))
    curve = [point["loss"] for point in json.loads(Path(config.output, "training.json").read_text())["curve"]]
    assert curve[-1] < 0.8 * curve[0]


def test_batches_hold_prompt_and_partly_masked_response() -> None:
    prompts = [[1, 2, 3], [4], [5, 6]]
    responses = torch.arange(3 * 40).view(3, 40) % 20
    batch = batch_of(responses, prompts)
    assert batch.sequences.input_ids.shape == (3, 43)
    assert batch.sequences.lengths is not None
    assert batch.sequences.lengths.tolist() == [43, 41, 42]
    restored = batch.sequences.input_ids.clone()
    assert (restored.view(-1)[batch.sequences.positions] == MASK).all()
    restored.view(-1)[batch.sequences.positions] = batch.labels
    for row, prompt in enumerate(prompts):
        length = batch.sequences.lengths[row]
        assert restored[row, :length].tolist() == prompt + responses[row].tolist()
        assert (restored[row, length:] == PAD).all()
    assert batch_of(responses, [[1]] * 3).sequences.lengths is None


def test_mask_ratios_cover_the_interval_evenly_and_weights_are_their_inverse() -> None:
    rows, gen_length = 64, 4096
    batch = batch_of(torch.zeros(rows, gen_length, dtype=torch.int64), [[1]] * rows, min_mask_ratio=1e-9)
    row = batch.sequences.positions // (gen_length + 1)
    ratio = 1 / (batch.weights * rows * gen_length)  # of each entry's row, exactly
    found = torch.bincount(row, minlength=rows) / gen_length  # as drawn
    per_row = torch.zeros(rows).index_copy(0, row, ratio)
    torch.testing.assert_close(found, per_row, rtol=0, atol=0.04)
    ordered = per_row.sort().values
    torch.testing.assert_close(ordered.diff(), torch.full((rows - 1,), 1 / rows), rtol=1e-3, atol=1e-4)
    assert 0 < ordered[-1] <= 1
    assert (per_row.diff() < 0).any()  # in no order of rows


def test_smallest_mask_ratio_bounds_the_weights() -> None:
    batch = batch_of(torch.zeros(64, 50, dtype=torch.int64), [[1]] * 64, min_mask_ratio=0.25)
    assert batch.weights.max() <= 1 / (0.25 * 64 * 50) * 1.0001


@pytest.mark.parametrize("block", [None, 6])
def test_loss_is_the_equation(block: int | None) -> None:
    torch.manual_seed(0)
    config = PretrainConfig(output="unused", hidden_size=16, layers=1, heads=2, causal_block_length=block)
    tokenizer = arithmetic_tokenizer()
    model = pretraining._new_model(config, tokenizer).double().eval()
    batch = next(islice(pretraining._batches(config, tokenizer, torch.Generator().manual_seed(0)), 1))
    rows, gen_length = 64, 28
    expected = torch.zeros((), dtype=torch.float64)
    ids, lengths = batch.sequences.input_ids, batch.sequences.lengths
    assert (batch.clean is None) == (block is None)
    if batch.clean is not None:  # the same texts, of which the labels are not masked
        assert torch.equal(batch.clean, ids.flatten().scatter(0, batch.sequences.positions, batch.labels).view_as(ids))
    log_probabilities = model(ids, lengths=lengths, clean=batch.clean).logits.log_softmax(-1)
    for position, label, weight in zip(batch.sequences.positions, batch.labels, batch.weights.double(), strict=True):
        row, column = divmod(int(position), batch.sequences.input_ids.shape[1])
        ratio = 1 / (weight * rows * gen_length)
        expected = expected - log_probabilities[row, column, label] / ratio / gen_length / rows
    # the loss itself is computed in float32
    torch.testing.assert_close(diffusion_loss(model, batch).double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("steps", 0, r"steps must be an integer in \[1, .*, got 0"),
        ("batch_size", -1, r"batch_size must be an integer in \[1, .*, got -1"),
        ("learning_rate", float("nan"), r"learning_rate must be a finite number in \(0, .*, got nan"),
        ("max_grad_norm", 0.0, r"max_grad_norm must be a finite number in \(0, "),
        ("warmup_steps", -1, r"warmup_steps must be an integer in \[0, "),
        ("min_mask_ratio", 0.0, r"min_mask_ratio must be a finite number in \(0, 1\], got 0.0"),
        ("reference_share", 2.0, r"reference_share must be a finite number in \[0, 1\], got 2.0"),
        ("rare_weight", -0.1, "rare_weight must be a finite number in"),
        ("heads", 5, r"hidden_size must be an even multiple of heads \(5\), got 16"),
        ("seed", -3, r"seed must be an integer in \[0, .*, got -3"),
        ("seed", 2**64, r"seed must be .*4611686018427387904\], got 18446744073709551616"),
        ("steps", 2**64, r"steps must be .*2147483647\], got 18446744073709551616"),
        ("batch_size", 2**31, r"batch_size must be .*2147483647\]"),
        ("layers", 2**63, r"layers must be .*2147483647\]"),
        ("warmup_steps", 2**63, r"warmup_steps must be .*2147483647\]"),
        ("learning_rate", 1e39, r"learning_rate must be .*1e\+31\], got 1e\+39"),
        ("weight_decay", float("inf"), r"weight_decay must be .*1000000\], got inf"),
        ("device", "gpu", "device must be auto, cpu, cuda or cuda:N, got 'gpu'"),
        ("output", "", "output must be a path, got ''"),
    ],
)
def test_bad_settings_are_named_before_any_work(
    config: PretrainConfig, monkeypatch: pytest.MonkeyPatch, name: str, value: object, message: str
) -> None:
    monkeypatch.setattr(pretraining, "_new_model", None)
    with pytest.raises(ValueError, match=message):
        pretrain(replace(config, **{name: value}))  # type: ignore[arg-type]


def test_an_existing_folder_is_not_overwritten(config: PretrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    output = Path(config.output)
    output.mkdir()
    (output / "precious").write_text("x")
    monkeypatch.setattr(pretraining, "_new_model", None)
    with pytest.raises(FileExistsError, match="output must be a new or empty folder"):
        pretrain(config)
    assert [entry.name for entry in output.iterdir()] == ["precious"]
    for path in (output / "precious" / "sub", "/proc/x/y"):
        with pytest.raises(ValueError, match=f"output must be a folder that .*, got '{path}'"):
            pretrain(replace(config, output=str(path)))


@pytest.mark.parametrize("kind", ["current", "link", "empty"])
def test_an_existing_empty_folder_is_filled(
    config: PretrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path / "real")
    model = pretrain(replace(config, output={"current": ".", "link": "../link", "empty": str(tmp_path / "real")}[kind]))
    ids = torch.tensor([[1, 2, 3, MASK]])
    assert torch.equal(load_model(tmp_path / "real", device="cpu")(ids).logits, model(ids).logits)
    assert not [entry.name for entry in Path().iterdir() if entry.name.startswith(".tmp-")]


def test_a_disk_that_is_full_at_the_end_does_not_cost_the_model(
    config: PretrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(model: object, tokenizer: object, path: Path, **options: object) -> None:
        if path == Path(config.output):
            raise OSError(28, "No space left on device", str(path))
        save_model(model, tokenizer, path, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(pretraining, "save_model", save)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "elsewhere"))
    with pytest.raises(OSError, match="No space left on device") as error:
        pretrain(config)
    [note] = error.value.__notes__
    load_model(note.removeprefix("it was written to ").removesuffix(" instead"))


def test_divergence_ends_the_run_and_writes_nothing(config: PretrainConfig) -> None:
    with pytest.raises(FloatingPointError, match=r"the loss became .* by step .*; lower learning_rate"):
        pretrain(replace(config, learning_rate=1e30, warmup_steps=0, steps=12))
    assert not Path(config.output).exists()


def test_every_setting_is_explained() -> None:
    assert all(field.metadata["help"] for field in fields(PretrainConfig))
