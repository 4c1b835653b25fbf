"""Small deterministic models with the interface that decoding is written against, on the device under test."""

from types import SimpleNamespace

import pytest
import torch

from tad_ext.decoding.policies import policies_by_name
from tad_ext.models.dream import DreamConfig, DreamModel
from tad_ext.models.llada import LLaDAConfig, LLaDAModelLM
from tad_ext.models.tiny import TinyDiffusionConfig, TinyDiffusionLM

torch.set_num_threads(1)

VOCABULARY, MASK, EOS, UNUSED = 12, 10, 9, 11
RAGGED = [[1, 2, 3], [4], [5, 6, 7, 8, 0, 1, 2], [3, 3], [2, 4, 6, 8], [7] * 9, [1, 2, 3]]  # prompts
MODELS = {
    "tiny": (TinyDiffusionLM, TinyDiffusionConfig),
    "llada": (LLaDAModelLM, LLaDAConfig),
    "dream": (DreamModel, DreamConfig),
}


class FakeModel:
    """Calls `row_logits(tokens (n,) of one row without padding) -> (n, V)` for each row, so rows cannot touch.

    Takes and gives tensors on `device`, and computes on the CPU: the same bits everywhere.
    """

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.config = SimpleNamespace(
            vocab_size=VOCABULARY,
            mask_token_id=MASK,
            eos_token_ids=[EOS],
            suppress_token_ids=[UNUSED],
            max_position_embeddings=64,
        )
        self.calls: list[SimpleNamespace] = []  # arguments of every forward

    def __call__(self, input_ids, *, lengths=None, positions=None):
        batch, length = input_ids.shape
        real = [length] * batch if lengths is None else lengths.tolist()
        assert max(real) == length, "columns that every row pads are wasted work"
        assert lengths is None or min(real) < length, "nothing is padded: lengths should be None"
        self.calls.append(SimpleNamespace(input_ids=input_ids.clone(), lengths=lengths, positions=positions.clone()))
        assert input_ids.device.type == positions.device.type == self.device.type
        logits = torch.zeros(batch, length, VOCABULARY)
        for row, count in enumerate(real):
            logits[row, :count] = self.row_logits(input_ids[row, :count].cpu())
        assert ((positions >= -1) & (positions < batch * length)).all()
        return SimpleNamespace(logits=logits.flatten(0, 1)[positions.cpu().clamp(min=0)].to(self.device))


class MixingModel(FakeModel):
    """Every logit depends on every visible token of its row and on the distance to it."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.embedding = torch.randn(VOCABULARY, 16, generator=generator, dtype=torch.float64)
        self.embedding[MASK] *= 0.1  # many masks must not drown the tokens
        self.head = torch.randn(16, VOCABULARY, generator=generator, dtype=torch.float64)
        self.place = torch.randn(64, 16, generator=generator, dtype=torch.float64)

    def row_logits(self, tokens):
        places = torch.arange(len(tokens), dtype=torch.float64)
        weight = 1 / (1 + (places[:, None] - places).abs())
        # Varied rather than peaked (0.3 to 2.3 nats), so that thresholds and sampling have something to do.
        mixed = torch.tanh(weight @ self.embedding[tokens] + 3 * self.place[: len(tokens)])
        return (0.5 * mixed @ self.head).float()


class ScriptedModel(FakeModel):
    """Behind a prompt of one token, canvas column i is predicted as `tokens[i]` with probability `confidences[i]`."""

    def __init__(self, confidences, tokens=None) -> None:
        super().__init__()
        self.confidences = confidences
        self.tokens = tokens or [1 + i % 8 for i in range(len(confidences))]

    def row_logits(self, tokens):
        columns = len(self.confidences)
        probability = torch.zeros(columns + 1, VOCABULARY)
        probability[0] = 1 / VOCABULARY
        probability[1:] = ((1 - torch.tensor(self.confidences)) / (VOCABULARY - 1))[:, None]
        probability[torch.arange(1, columns + 1), self.tokens] = torch.tensor(self.confidences)
        assert len(tokens) == columns + 1
        return probability.log()


@pytest.fixture
def mixing_model(device):
    return type("MixingModel", (MixingModel,), {"device": torch.device(device)})


@pytest.fixture
def scripted_model(device):
    return type("ScriptedModel", (ScriptedModel,), {"device": torch.device(device)})


@pytest.fixture(params=MODELS)
def transformer(request, device):
    """A random transformer of each family."""
    return random_transformer(request.param, 1, device)


def random_transformer(family, seed, device):
    """A tiny model of a family, by its name in MODELS."""
    model_class, config_class = MODELS[family]
    torch.manual_seed(seed)
    config = config_class(
        vocab_size=12,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=32,
        initializer_range=0.4,
        mask_token_id=10,
        eos_token_ids=[9],
        suppress_token_ids=[11],
    )
    return model_class(config).to(device).eval()


@pytest.fixture
def registry():
    """The named policies, to add to; afterwards they are as they were."""
    before = dict(policies_by_name)
    yield policies_by_name
    policies_by_name.clear()
    policies_by_name.update(before)
