"""Policies that go by what a small network has learnt."""

import copy
import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tad_ext.models.checkpoint import shapes_in, weight_differences
from tad_ext.ops import DecodeState, TokenStatistics
from tad_ext.settings import Matching, Probability

from .base import NamedPolicy
from .rows import candidates, first_block, leading

FILTER_FILE = "filter.safetensors"
FilterPath = Annotated[str, Matching(r"[^,=]+", "a path without , and =")]


class FilterNetwork(nn.Module):
    """Linear layers of a block's length with ReLU between them: logistic regression, if there is one.

    Maps the confidences of a block's positions, (..., length), to logits of their tokens being final, the same shape.
    """

    def __init__(self, length: int, layers: int) -> None:
        super().__init__()
        self.length = length
        for number in range(1, layers + 1):
            self.add_module(f"linear{number}", nn.Linear(length, length))

    def forward(self, confidence: Tensor) -> Tensor:
        """The logits."""
        first, *others = self.children()
        logits: Tensor = first(confidence)
        for layer in others:
            logits = layer(logits.relu())
        return logits


def read_filter(path: str | Path) -> FilterNetwork:
    """The filter in a safetensors file, or in the folder of `tad train-filter`. ValueError, with the file, if none is.

    Its weights are linear1.weight (length, length), linear1.bias (length,), linear2.weight and so on.
    """
    file = Path(path) / FILTER_FILE if Path(path).is_dir() else Path(path)
    if not file.is_file():
        raise ValueError(f"there is no file {file}: expected a filter that tad train-filter has written")
    shapes = shapes_in(file)
    length, layers = next(iter(shapes.get("linear1.bias", ())), 0), max(len(shapes) // 2, 1)
    expected: dict[str, tuple[int, ...]] = {}
    for number in range(1, layers + 1):
        expected |= {f"linear{number}.weight": (length, length), f"linear{number}.bias": (length,)}
    if differences := weight_differences(expected, shapes):
        raise ValueError(f"{file} holds no filter of a block's confidences: {differences}")
    network = FilterNetwork(length, layers).requires_grad_(False)
    network.load_state_dict(load_file(file))
    if broken := [name for name, weight in network.state_dict().items() if not weight.isfinite().all()]:
        raise ValueError(f"{file} holds no filter of a block's confidences: {broken[0]} is not finite")
    return network


@dataclass(frozen=True)
class LearnedFilter(
    NamedPolicy,
    name="learn2pd",
    rule="what a trained filter of the block's confidences gives a probability > threshold, and the most confident",
    source="Learn2PD, arXiv 2509.25188",
):
    """Reveal what a trained network takes for final in the first unfinished block, and its most confident position.

    `filter` names the network's file (`read_filter`), which `tad train-filter` writes for a model. It is shown the
    largest probability of each of the block's positions, of revealed ones too, and says of each how probable it is that
    its token will not change. Masks of a probability > `threshold` are revealed, the most confident one in any case.

    Learn2PD, arXiv 2509.25188, and its code, with the threshold of its LLaDA (0.9 for Dream) and as many steps as the
    canvas has positions. With fewer steps its code reveals more of the most confident positions in each, and where a
    block has fewer masks than that, it may take some of later blocks, of any confidence; here no step reaches beyond
    the block. Its end-of-text prediction cuts the canvas at the most confident position that predicts the end, however
    unlikely; here an end counts once it is revealed (`stop_at_eos`). The network is computed in float64, so that
    nothing depends on the batch.
    """

    filter: FilterPath
    threshold: Probability = 0.96
    sees = "block"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._network_on(torch.device("cpu"))  # so that a file which will not do is told of at once

    def __call__(self, statistics: TokenStatistics, state: DecodeState) -> tuple[Tensor, Tensor]:
        """Score by log-odds; accept what the filter does, and the best. ValueError for blocks of another length."""
        network, length = self._network_on(state.positions.device), state.block_length
        if network.length != length:
            raise ValueError(f"policy {self} has a filter of blocks of {network.length}, got block_length {length}")
        block = state.present & (state.positions // length == first_block(state))
        place = torch.where(block, state.positions % length, length)  # the last one takes what is not of the block
        known = statistics.confidence.double().masked_fill(~(block & statistics.valid), 0.0)
        confidence = known.new_zeros(len(known), length + 1).scatter_(1, place, known)
        final = network(confidence[:, :-1]).sigmoid() > self.threshold
        masks = candidates(statistics, state) & block
        best = leading(statistics.log_odds, masks, torch.ones_like(place[:, :1]))
        return statistics.log_odds, best | (masks & final.gather(1, place.clamp(max=length - 1)))

    @property
    def block_length(self) -> int:
        """Positions of the blocks that it can decode."""
        return self._network_on(torch.device("cpu")).length

    @cached_property
    def fingerprint(self) -> str:
        """Of the network, whatever its file is called."""
        weights = self._network_on(torch.device("cpu")).state_dict()
        return hashlib.sha256(b"".join(weight.numpy().tobytes() for weight in weights.values())).hexdigest()[:16]

    def _network_on(self, device: torch.device) -> FilterNetwork:
        if device not in self._networks:
            self._networks[device] = copy.deepcopy(self._networks[torch.device("cpu")]).to(device)
        return self._networks[device]

    @cached_property
    def _networks(self) -> dict[torch.device, FilterNetwork]:
        """The network by device, as it was when the policy was made."""
        return {torch.device("cpu"): read_filter(self.filter).double()}
