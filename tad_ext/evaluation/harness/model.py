"""A masked diffusion model as lm-evaluation-harness knows models: requests in, texts and log-likelihoods out."""

import json
import logging
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather
from jinja2 import TemplateError
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window, simple_parse_args_string
from torch import Tensor
from tqdm import tqdm

from tad_ext.data.tasks.prompts import text_ids
from tad_ext.decoding import DecodeConfig, decode_stream
from tad_ext.decoding.config import whole_blocks
from tad_ext.decoding.inputs import longest_prompt
from tad_ext.decoding.stopping import cut_at
from tad_ext.evaluation.likelihood import Pair, are_greedy, log_likelihoods
from tad_ext.evaluation.settings import HarnessSettings
from tad_ext.models.device import device_of_process
from tad_ext.models.loading import load_tokenizer
from tad_ext.models.lora import load_merged
from tad_ext.models.tokenizers import tokenizer_hash
from tad_ext.settings import made

_LOGGER = logging.getLogger(__name__)
_SAVED_TOGETHER = 256  # answers; what is finished is in the harness's response cache, if there is one
_COPIES = 2**31  # samples of one document have numbers so far apart
_LOADING = ("pretrained", "adapter", "allow_other_model", "dtype", "device", "batch_size", "max_batch_size")
_GENERATION = {"until", "max_gen_toks", "do_sample", "temperature", "top_k", "top_p"}


@dataclass(frozen=True)
class Generation:
    """What one response took."""

    task: str | None
    document: int | None
    sample: int  # 0, 1, ... of the same document
    tokens: int  # up to and including the first end of sequence or stop string
    forwards: int  # during which it was unfinished


@register_model("tad")
class TadLM(TemplateLM):
    """Answers the harness's requests with a model, and keeps what each response took in `generations`.

    Several processes (torchrun, accelerate) share the requests as the harness gives them out, each with a whole model.
    A prompt that is too long for the model loses its beginning, as with the harness's own models; `truncated` counts.

    Args:
        model: a masked diffusion model with its adapter merged.
        tokenizer: the model's.
        settings: how to decode and to estimate; default: the defaults, one token per forward.
    """

    def __init__(self, model: Any, tokenizer: Any, settings: HarnessSettings | None = None) -> None:
        super().__init__()
        self.model, self.tokenizer, self.settings = model, tokenizer, settings or HarnessSettings()
        self.generations: list[Generation] = []
        self.truncated = 0
        self._device = model.device
        self._specials = tuple(
            token.content for token in tokenizer.added_tokens_decoder.values() if token.special and token.content
        )
        if os.environ.get("WORLD_SIZE", "1") != "1":
            if self._device.type == "cuda":
                torch.cuda.set_device(self._device)  # the GPU that accelerate means by "cuda"
            # A process that is done waits for the others, however long they take.
            state = PartialState(cpu=self._device.type == "cpu", timeout=timedelta(weeks=52))
            self._rank, self._world_size = state.process_index, state.num_processes

    @classmethod
    def create_from_arg_obj(
        cls, arg_dict: Mapping[str, Any], additional_config: Mapping[str, Any] | None = None
    ) -> "TadLM":
        """From --model_args: `pretrained` (a checkpoint folder), `adapter`, `allow_other_model`, `dtype`, `device`, and
        any `HarnessSettings` by its name: preset=tad,gen_length=256,mc_num=32.

        The harness's defaults, device cuda:0 and batch_size auto, mean a GPU if there is one, and the preset's. A model
        with blocks of its own is decoded in these.
        Raises ValueError, TypeError, naming the argument; what `load_merged` raises.
        """
        values = {**arg_dict, **{name: value for name, value in (additional_config or {}).items() if value is not None}}
        loading = {name: values.pop(name) for name in _LOADING if name in values}
        if not isinstance(loading.get("pretrained"), (str, Path)):
            raise ValueError(f"pretrained must be a checkpoint folder, got {loading.get('pretrained')!r}")
        if not str(loading.get("batch_size", "auto")).startswith("auto"):
            values["batch_size"] = int(loading["batch_size"])
        settings, path = made(HarnessSettings, values), loading["pretrained"]
        device = str(loading.get("device", "auto"))
        options = {name: loading[name] for name in ("dtype", "allow_other_model") if name in loading}
        tokenizer = load_tokenizer(path)
        place = device_of_process("auto" if device == "cuda:0" else device)
        model: Any = load_merged(path, loading.get("adapter"), device=str(place), **options)
        decoding = settings.decoding.in_blocks_of(model.config.causal_block_length, settings.given)
        return cls(model, tokenizer, replace(settings, decoding=decoding))

    @classmethod
    def create_from_arg_string(cls, arg_string: str, additional_config: Mapping[str, Any] | None = None) -> "TadLM":
        """As `create_from_arg_obj`, from name=value,name=value."""
        return cls.create_from_arg_obj(simple_parse_args_string(arg_string), additional_config)

    # Generation.

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """The responses, in the order of the requests, each up to its first stop string and at most `max_gen_toks`.

        Requests of one task with the same arguments are one `decode_stream`. A document's samples are the same in any
        order and number of processes: their seed is the settings' and the document's number.
        """
        groups: dict[tuple[Any, str], list[int]] = defaultdict(list)
        for index, request in enumerate(requests):
            groups[request.task_name, json.dumps(request.args[1], sort_keys=True)].append(index)
        # All groups are looked at before the first is decoded.
        plans = [(*self._decoding(requests[indices[0]]), indices) for indices in groups.values()]
        texts = [""] * len(requests)
        for config, most, indices in plans:
            asked = _samples([requests[index] for index in indices])
            prompts = [self._prompt(requests[indices[first]].args[0], config) for first, *_ in asked.values()]
            for response in decode_stream(
                self.model, prompts, config, tokenizer=self.tokenizer, numbers=list(asked),
                progress=self._shows(disable_tqdm),
            ):  # fmt: skip
                text = self.tokenizer.decode(response.response()[:most], skip_special_tokens=True)
                for place in asked[response.number]:
                    texts[indices[place]] = cut_at(text, config.stop_strings)
                request = requests[indices[asked[response.number][0]]]
                sample = response.number // _COPIES
                took = response.response_length, response.forwards
                self.generations.append(Generation(request.task_name, request.doc_id, sample, *took))
                self.cache_hook.add_partial("generate_until", request.args, cut_at(text, config.stop_strings))
        return texts

    def _decoding(self, request: Any) -> tuple[DecodeConfig, int]:
        """How a request is decoded, and the most tokens that its response may have."""
        decoding = self.settings.decoding
        asked = normalize_gen_kwargs(request.args[1], decoding.gen_length)
        unknown = {
            name: value
            for name, value in asked.items()
            if name not in _GENERATION and (name, value) != ("num_beams", 1)
        }
        if unknown:
            raise ValueError(
                f"generation_kwargs of task {request.task_name!r} are {unknown}; expected some of "
                f"{', '.join(sorted(_GENERATION))}"
            )
        most = asked["max_gen_toks"]
        length = most if self.settings.task_lengths else min(most, decoding.gen_length)
        changes: dict[str, Any] = {
            "gen_length": whole_blocks(length, decoding.block_length),
            "stop_strings": tuple(dict.fromkeys(filter(None, asked["until"]))),
        }
        if asked["do_sample"] and asked.get("temperature", 0.0) > 0:
            changes |= {name: asked[name] for name in ("temperature", "top_k", "top_p") if name in asked}
        return replace(decoding, **changes), most

    def _prompt(self, text: str, decoding: DecodeConfig) -> list[int]:
        return self._end_of(self.tok_encode(text), max(longest_prompt(self.model.config, decoding), 1))

    # Likelihoods.

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Prompt and answer as the harness divides them. An answer that it leaves no token, as its text became part of
        the prompt's last ones, is encoded by itself: nothing at all would be as likely as can be.
        """
        prompt, answer = super()._encode_pair(context, continuation)
        return prompt, answer or self.tok_encode(continuation, add_special_tokens=False)

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], disable_tqdm: bool = False, **_: Any
    ) -> list[tuple[float, bool]]:
        """(log-likelihood in nats, whether it is the greedy answer) of each (texts or None, prompt, answer)."""
        pairs = [self._pair(prompt, answer) for _, prompt, answer in requests]
        found: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
        with tqdm(
            total=len(pairs), unit="answer", desc="log-likelihoods", disable=not self._shows(disable_tqdm)
        ) as bar:
            for numbers in _by_length(pairs):
                together = [pairs[number] for number in numbers]
                greedy = [False] * len(numbers)
                if self.settings.check_greedy and self.model.config.causal_block_length is None:
                    greedy = are_greedy(self.model, together, **self._forwards)
                for place, value in self._log_likelihoods(together):
                    found[numbers[place]] = answer = value, greedy[place]
                    if (texts := requests[numbers[place]][0]) is not None:
                        self.cache_hook.add_partial("loglikelihood", texts, answer)
                    bar.update()
        return found

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """The log-likelihood of each text, in nats: the sum over windows that fill the model's positions.

        Each token is in one window. What stands before a window is its prompt, as far as there is room; of the first
        one that is the `prefix_token_id`.
        """
        windows: list[tuple[int, Pair]] = []
        for number, request in enumerate(requests):
            ids = self.tok_encode(request.args[0], add_special_tokens=False)
            pieces = get_rolling_token_windows(ids, self.prefix_token_id, self.max_length - 1, context_len=1)
            windows += [(number, make_disjoint_window(piece)) for piece in pieces]
        sums = [0.0] * len(requests)
        estimates = self._log_likelihoods([pair for _, pair in windows])
        hidden = not self._shows(disable_tqdm)
        for place, value in tqdm(estimates, total=len(windows), unit="window", desc="log-likelihoods", disable=hidden):
            sums[windows[place][0]] += value
        for request, value in zip(requests, sums, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, value)
        return sums

    def _log_likelihoods(self, pairs: Sequence[Pair]) -> Iterator[tuple[int, float]]:
        settings = self.settings
        return log_likelihoods(self.model, pairs, mc_num=settings.mc_num, seed=settings.decoding.seed, **self._forwards)

    @property
    def _forwards(self) -> dict[str, Any]:
        return {"batch_size": self.settings.decoding.batch_size, "guidance": self.settings.decoding.guidance}

    def _pair(self, prompt: list[int], answer: list[int]) -> Pair:
        room = self.max_length - len(answer)
        if room < 1:
            raise ValueError(
                f"an answer has {len(answer)} tokens; expected fewer than the model's {self.max_length} positions"
            )
        return self._end_of(prompt, room), answer

    def _end_of(self, prompt: list[int], room: int) -> list[int]:
        if len(prompt) <= room:
            return prompt
        if not self.truncated:
            _LOGGER.warning("a prompt of %d tokens is too long for the model, its beginning is left out", len(prompt))
        self.truncated += 1
        return prompt[len(prompt) - room :]

    # Texts.

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Token ids of a text. One that begins with a special token is a chat template's, which writes all of them."""
        if add_special_tokens is None:
            add_special_tokens = not string.startswith(self._specials)
        return text_ids(self.tokenizer, string, add_special_tokens=add_special_tokens)

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The conversation as text, up to the response, or with the beginning of one.

        ValueError if the tokenizer has no template or it refuses the messages.
        """
        if not self.tokenizer.chat_template:
            raise ValueError("apply_chat_template is true, and the model's tokenizer has no chat template")
        end = {"add_generation_prompt": add_generation_prompt, "continue_final_message": not add_generation_prompt}
        try:
            return str(self.tokenizer.apply_chat_template(chat_history, tokenize=False, **end))
        except TemplateError as error:
            roles = ", ".join(message["role"] for message in chat_history)
            raise ValueError(f"the tokenizer's chat template refuses messages of the roles {roles}: {error}") from error

    @property
    def tokenizer_name(self) -> str:
        """By which the harness keeps requests apart that it has cached."""
        return f"{Path(self.tokenizer.name_or_path).name}-{tokenizer_hash(self.tokenizer)}"

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        end = self.tokenizer.eos_token_id
        return int(self.model.config.eos_token_ids[0] if end is None else end)

    @property
    def prefix_token_id(self) -> int:
        """What stands before a text that nothing stands before: the token that begins one, or else ends one."""
        begin = self.tokenizer.bos_token_id
        return self.eot_token_id if begin is None else int(begin)

    @property
    def max_length(self) -> int:
        """Positions of the model."""
        return int(self.model.config.max_position_embeddings)

    def get_model_info(self) -> dict[str, Any]:
        """What the harness writes down of a model."""
        return {"model_num_parameters": self.model.num_parameters(), "model_dtype": str(self.model.dtype)}

    # Several processes.

    def _shows(self, disable_tqdm: bool) -> bool:
        return self.rank == 0 and not disable_tqdm

    def all_gather(self, tensor: Tensor) -> Tensor:
        """Of all processes, one behind the other."""
        return gather(tensor) if self.world_size > 1 else tensor

    def gather_object(self, obj: Any, dst: int = 0) -> list[Any] | None:
        """Of all processes, for process `dst`; None for the others."""
        if self.world_size == 1:
            return [obj]
        found: list[Any] | None = [None] * self.world_size if self.rank == dst else None
        torch.distributed.gather_object(obj, found, dst=dst)
        return found

    def barrier(self) -> None:
        """Waits for all processes."""
        if self.world_size > 1:
            PartialState().wait_for_everyone()


def _samples(requests: Sequence[Any]) -> dict[int, list[int]]:
    """What is to be decoded for the requests of a task: the places of each among them, by the prompt's number.

    A request that is asked for more than its `repeats` fills up a process's share; it gets what it has already.
    """
    places: dict[int, list[int]] = {}
    times: Counter[int] = Counter()  # that a request was asked for
    copies: Counter[int] = Counter()  # of a document's prompts
    number_of: dict[tuple[int, int], int] = {}
    for place, request in enumerate(requests):
        document = place if request.doc_id is None else request.doc_id
        key = id(request), times[id(request)] % (request.repeats or len(requests))
        times[id(request)] += 1
        if key not in number_of:
            number_of[key] = document + copies[document] * _COPIES
            copies[document] += 1
        places.setdefault(number_of[key], []).append(place)
    return places


def _by_length(pairs: Sequence[Pair]) -> Iterator[tuple[int, ...]]:
    """The numbers of the pairs, longest first, in portions."""
    order = sorted(range(len(pairs)), key=lambda number: -len(pairs[number][0]) - len(pairs[number][1]))
    portions = (order[start : start + _SAVED_TOGETHER] for start in range(0, len(order), _SAVED_TOGETHER))
    return map(tuple, portions)
