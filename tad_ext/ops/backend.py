"""The operators in use: the compiled ones, or the reference where TAD_EXT_REFERENCE asks for it."""

from .library import compiled, not_compiled, use_reference

if use_reference:
    from .reference import (
        commit_reveal,
        eligible_positions,
        fused_linear_tad_loss,
        fused_tad_loss,
        masked_log_softmax,
        select_reveal,
        token_statistics,
        truncate_logits,
    )
elif compiled:
    from .eligible_positions import eligible_positions
    from .log_softmax import masked_log_softmax
    from .loss import fused_linear_tad_loss, fused_tad_loss
    from .reveal import commit_reveal
    from .select_reveal import select_reveal
    from .statistics import token_statistics
    from .truncate_logits import truncate_logits
else:
    commit_reveal = fused_linear_tad_loss = fused_tad_loss = not_compiled
    masked_log_softmax = select_reveal = eligible_positions = token_statistics = truncate_logits = not_compiled

__all__ = [
    "commit_reveal",
    "eligible_positions",
    "fused_linear_tad_loss",
    "fused_tad_loss",
    "masked_log_softmax",
    "select_reveal",
    "token_statistics",
    "truncate_logits",
]
