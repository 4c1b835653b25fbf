"""D2F's pipeline with its published settings; any of them can be given another value.

`d2f.llada(predict, prompt, mask_id=...)`, where `predict` is a model that attends block-causally. What D2F keeps of
finished blocks is exact there, and not expressed here. The lengths of its evaluations differ from task to task.
"""

from functools import partial

from . import block_schedule
from .block_schedule import confidence_above

llada = partial(
    block_schedule.loop,
    gen_length=256,
    block_length=32,
    rule=confidence_above(0.9),
    forced="every-block",
    block_add_threshold=0.1,
    decoded_token_threshold=0.95,
    hide_future_blocks=True,
)
