"""TAD's decoders, with the settings of its paper and of its scripts; any of them can be given another value.

`tad.llada(predict, prompt, mask_id=...)`, and likewise the others.
"""

from functools import partial

from . import block_schedule
from .block_schedule import entropy_below

llada = partial(
    block_schedule.loop,
    gen_length=256,
    block_length=32,
    rule=entropy_below(0.5),
    forced="row-and-block",
    block_add_threshold=0.1,
    decoded_token_threshold=0.95,
)
llada_script = partial(llada, block_add_threshold=0.5, decoded_token_threshold=0.5)
dream = partial(llada, rule=entropy_below(0.4))
block_by_block = partial(llada, block_add_threshold=1.0, decoded_token_threshold=1.0)
one_per_step = partial(block_by_block, rule=entropy_below(0.0))  # the baseline of one token per forward
