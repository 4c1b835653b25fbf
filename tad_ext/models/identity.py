"""Which model a checkpoint holds: what its configuration means for the weights, and the weights; not how files look.

An identity is a JSON object, ``{"model_type": "llada", "hidden_size": 4096, ..., "weights": {"model.safetensors":
"0123456789abcdef"}}``. Adapters, trajectories and responses note their model's; the one hash that earlier versions
noted is understood.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tad_ext.models.checkpoint import bytes_fingerprint, weight_digests
from tad_ext.models.hub import checkpoint_folder
from tad_ext.models.loading import load_config

# Other settings (dtype, end-of-sequence ids, versions, dropout, ...) leave the logits of a sequence as they are.
_MEANINGFUL = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
    "head_dim", "max_position_embeddings", "hidden_act", "rms_norm_eps", "rope_full_precision", "tie_word_embeddings",
    "mask_token_id", "causal_block_length", "moe_intermediate_size", "num_experts", "n_routed_experts",
    "n_shared_experts", "num_experts_per_tok", "norm_topk_prob", "n_group", "topk_group", "first_k_dense_replace",
    "routed_scaling_factor",
)  # fmt: skip
_HASH = "config.json and weights, in one hash of an earlier version,"
_WEIGHTS = "weights in "

Difference = tuple[str, Any, Any]  # what differs, as it was noted, as it is now


def model_identity(path: str | Path) -> dict[str, Any]:
    """The identity of the model in a checkpoint. Errors as `load_config`, or missing weights (ValueError)."""
    folder = checkpoint_folder(path)
    config = load_config(folder)
    config.name_or_path = folder
    return config_identity(config)


def config_identity(config: Any) -> dict[str, Any]:
    """The identity of the model with this configuration, and of its weights where it was loaded from a folder."""
    folder = folder_of(config)
    found = {"model_type": config.model_type, "rope_theta": float(config.rope_parameters["rope_theta"])}
    found |= {"partial_rotary_factor": config.rope_parameters.get("partial_rotary_factor")}
    found |= {name: getattr(config, name, None) for name in _MEANINGFUL}
    found["weights"] = None if folder is None else weight_digests(folder)
    return {name: value for name, value in found.items() if value is not None}


def folder_of(config: Any) -> Path | None:
    """The folder that a model was loaded from, if there is one."""
    return Path(config.name_or_path) if config.name_or_path and Path(config.name_or_path).is_dir() else None


def model_fingerprint(path: str | Path) -> str:
    """16 hexadecimal digits of `model_identity`, to tell checkpoints apart in a report."""
    return identity_fingerprint(model_identity(path))


def identity_fingerprint(identity: Mapping[str, Any]) -> str:
    """`model_fingerprint` of the model with this identity."""
    return hashlib.sha256(identity_text(identity).encode()).hexdigest()[:16]


def identity_text(identity: Mapping[str, Any]) -> str:
    """An identity on one line, equal for equal ones."""
    return json.dumps(identity, sort_keys=True)


def identity_differences(
    noted: str | Mapping[str, Any], found: str | Mapping[str, Any], folder: str | Path | None = None
) -> list[Difference]:
    """In what a noted identity (or its text) differs from `found`; what only one of them tells is not compared.

    What earlier versions noted is compared if there is a `folder`, the checkpoint of the model at hand.
    """
    before, now = _parsed(noted), _parsed(found)
    if _HASH in before and folder is not None:
        now[_HASH] = bytes_fingerprint(checkpoint_folder(folder))
    files, files_now = before.pop("weights", {}), now.pop("weights", {})
    if files and files_now:
        for name in {**files, **files_now}:
            before[_WEIGHTS + name], now[_WEIGHTS + name] = files.get(name), files_now.get(name)
    return [(name, before[name], now[name]) for name in sorted(before.keys() & now.keys()) if before[name] != now[name]]


def described(differences: Iterable[Difference]) -> str:
    """Differences for a message, which goes on from "another model: "."""
    return "; ".join(
        f"other {name}" if name.startswith(_WEIGHTS) else f"{name} {before}, this model's is {now}"
        for name, before, now in differences
    )


def _parsed(identity: str | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(identity, str) and identity.startswith("{"):
        identity = json.loads(identity)
    if not isinstance(identity, Mapping):
        identity = {"base_fingerprint": identity} if identity else {}  # converted files need not name a model
    # Where it was from ("hub") is noted beside an identity, and is no part of it.
    return {(_HASH if name == "base_fingerprint" else name): one for name, one in identity.items() if name != "hub"}
