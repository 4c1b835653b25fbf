"""One trajectory once more: its canvas as it filled, or, where nobody watches, a line for each step."""

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from rich.console import Group
from rich.live import Live
from rich.text import Text

from tad_ext.data.trajectories.files import Trajectory
from tad_ext.decoding.canvas_text import canvas_text, screenful, terminal
from tad_ext.terminal import printable

_SECONDS, _SECONDS_PER_STEP = 12.0, 0.15  # at most, of the whole and of a step


def replay(trajectory: Trajectory, mask_token_id: int, tokenizer: Any) -> None:
    """Shows it in the terminal; writes its steps where standard output is none."""
    console = terminal()
    if console is None:
        for line in steps_of(trajectory, tokenizer):
            print(line)
        return
    pause = min(_SECONDS_PER_STEP, _SECONDS / trajectory.num_steps)
    with Live(console=console, auto_refresh=False) as live:
        for step in range(trajectory.num_steps + 1):
            canvas = np.where(trajectory.reveal_step <= step, trajectory.response_ids, mask_token_id)
            text = canvas_text(
                canvas.tolist(),
                (trajectory.reveal_step == step).tolist(),
                mask_token_id,
                lambda ids: tokenizer.decode(ids, skip_special_tokens=True),
            )
            revealed = int((trajectory.reveal_step <= step).sum())
            count = f"step {step} of {trajectory.num_steps}, {revealed} of {len(canvas)} positions"
            live.update(Group(*screenful(text, console, console.width), Text(count, style="dim")), refresh=True)
            time.sleep(pause)


def steps_of(trajectory: Trajectory, tokenizer: Any) -> Iterator[str]:
    """What each step revealed, with the positions, and the text in the end."""
    for step in range(1, trajectory.num_steps + 1):
        positions = np.flatnonzero(trajectory.reveal_step == step)
        tokens = [f"{position} {tokenizer.decode([trajectory.response_ids[position]])!r}" for position in positions]
        yield f"step {step:>4}: {', '.join(tokens) or 'nothing'}"
    yield printable(tokenizer.decode(trajectory.response_ids, skip_special_tokens=True))
