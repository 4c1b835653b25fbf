"""d3LLM's decoders with their published settings; any of them can be given another value.

`d3llm.llada(predict, prompt, mask_id=...)`, and likewise the others; the cached ones take a `models.Model`.
"""

from functools import partial
from typing import Any

from . import block_schedule, d3llm_cache
from .block_schedule import entropy_below

_LLADA: dict[str, Any] = {
    "gen_length": 256,
    "block_length": 32,
    "rule": entropy_below(0.5),
    "forced": "row-and-block",
    "block_add_threshold": 0.1,
    "decoded_token_threshold": 0.95,
}
llada = partial(block_schedule.loop, **_LLADA)
dream = partial(llada, rule=entropy_below(0.4), forced="block")

# With the delayed cache, by task.
gsm8k_cached = partial(d3llm_cache.loop, **_LLADA, delay=2, refresh_interval=3)
long_gsm8k_cached = partial(gsm8k_cached, refresh_interval=None)
math_cached = partial(d3llm_cache.loop, **_LLADA, delay=1, refresh_interval=None)
mbpp_cached = math_cached
humaneval_cached = partial(gsm8k_cached, refresh_interval=4, block_add_threshold=1.0, decoded_token_threshold=1.0)
