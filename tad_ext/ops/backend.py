"""The operators in use: the compiled ones, or the reference where TAD_EXT_REFERENCE asks for it."""

from .library import use_reference

if use_reference:
    from .reference import (
        commit_reveal,
        fused_linear_tad_loss,
        fused_tad_loss,
        masked_log_softmax,
        token_statistics,
    )
else:
    from .log_softmax import masked_log_softmax
    from .loss import fused_linear_tad_loss, fused_tad_loss
    from .reveal import commit_reveal
    from .statistics import token_statistics

__all__ = ["commit_reveal", "fused_linear_tad_loss", "fused_tad_loss", "masked_log_softmax", "token_statistics"]
