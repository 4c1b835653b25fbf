"""LoRA adapters on masked diffusion models, through peft: add, save, load, merge, and switch off to get the teacher.

An adapter adds (alpha / rank) * B A x to chosen linear layers (LoRA, Hu et al., arXiv 2106.09685). rsLoRA has
alpha / sqrt(rank) in the place of alpha / rank (Kalajdzievski, arXiv 2312.03732). DoRA also trains the lengths of the
rows of W + (alpha / rank) * B A (Liu et al., arXiv 2402.09353). peft injects its layers in place, so
`base_model(model).hidden_rows(...)` uses the adapter, and the same call within `teacher(model)` is the frozen base
model.
"""

import math
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer, check_target_module_exists
from peft.utils.other import AuxiliaryTrainingWrapper
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from tad_ext.files import atomic_folder, write_json
from tad_ext.models.adapter_config import check_options, read_adapter_config
from tad_ext.models.base import MaskedDiffusionMixin, evaluation_mode
from tad_ext.models.checkpoint import files_digest, listed, read_json, shapes_in, weight_differences
from tad_ext.models.cpu_dropout import CPUDropout
from tad_ext.models.hub import checkpoint_folder, hub_note
from tad_ext.models.identity import config_identity, described, folder_of, identity_differences
from tad_ext.models.loading import load_model

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
BASE_FILE = "base_model.json"  # ours: which base model the adapter belongs to

_SWITCHES = (BaseTunerLayer, AuxiliaryTrainingWrapper)  # all that peft puts around a module


def base_model(model: nn.Module) -> MaskedDiffusionMixin:
    """The masked diffusion model inside a PeftModel (its LoRA layers stay in effect), or the model itself."""
    inner = model.get_base_model() if isinstance(model, PeftModel) else model
    if not isinstance(inner, MaskedDiffusionMixin):
        raise TypeError(f"model must be a masked diffusion model or a PeftModel of one, got {type(inner).__name__}")
    return inner


def add_lora(
    model: nn.Module,
    *,
    rank: int,
    alpha: float,
    dropout: float = 0.0,
    target_modules: Sequence[str] | None = None,
    use_dora: bool = False,
    use_rslora: bool = False,
    seed: int = 0,
) -> PeftModel:
    """Freeze `model`, in place, and add a fresh LoRA adapter, which computes the zero function until it is trained.

    Adapter weights are float32 on any base: steps of 2e-5 vanish in bfloat16.

    Args:
        rank: inner dimension of the adapter, >= 1.
        alpha: scale; the adapter's output is multiplied by alpha / rank, or with `use_rslora` by alpha / sqrt(rank).
        dropout: probability of zeroing an input feature of the adapter in training mode, 0 <= dropout < 1.
        target_modules: names of the linear layers to adapt, each a full name or its last components ("q_proj"). None:
            the model's `linear_names`.
        use_dora: scale each row of (weight + adapter) to a length that is trained, at first the weight's own. Every
            forward then makes B A of every layer as a whole.
        seed: of the random A matrices (B starts at zero). The global random state is left as it was.

    Raises:
        ValueError: a number out of range, a target name that matches no linear layer, or the output head as a target.
        TypeError: `model` is no masked diffusion model, or it has an adapter already.
    """
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        raise ValueError(f"rank must be an integer >= 1, got {rank!r}")
    if not math.isfinite(alpha) or alpha <= 0:
        raise ValueError(f"alpha must be a finite number > 0, got {alpha!r}")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be at least 0 and below 1, got {dropout!r}")
    if target_modules is None:
        target_modules = base_model(model).linear_names
    config = LoraConfig(
        r=rank,
        # peft types it as an integer, yet only ever divides it by the rank.
        lora_alpha=int(alpha) if float(alpha).is_integer() else alpha,
        lora_dropout=dropout,
        bias="none",
        target_modules=[target_modules] if isinstance(target_modules, str) else list(target_modules),
        use_dora=use_dora,
        use_rslora=use_rslora,
    )
    _check_targets(model, config)
    adapted = _inject(model, config, seed)
    for name, length in adapted.named_parameters():
        if ".lora_magnitude_vector." in name:  # which peft has rounded to the base weight's dtype
            weight = adapted.get_parameter(name.partition(".lora_")[0] + ".base_layer.weight")
            length.data = torch.linalg.norm(weight.to(length.dtype), dim=1)
    return adapted


@contextmanager
def teacher(model: PeftModel) -> Iterator[None]:
    """Within the context `model` IS the base model, bit for bit, in inference: adapter and dropout off, no gradients.

    Calling `backward()` belongs outside: gradient checkpointing would compute layers again without their adapter.
    Training mode is restored on leaving.

    Raises:
        TypeError: no PeftModel.
        ValueError: options that `load_adapter` refuses, or an adapter that is merged into the base weights.
    """
    _check_adapters(model)
    modules = _without_adapter(model)
    switches: list[Any] = [module for module in modules if isinstance(module, _SWITCHES)]
    if any(isinstance(switch, BaseTunerLayer) and switch.merged for switch in switches):
        raise ValueError("model has its adapter merged, and subtracting it would round; call unmerge_adapter first")
    switched = [switch for switch in switches if not switch.disable_adapters]
    # The flags alone, which peft's layers read in forward. Its disable_adapter() and enable_adapters() visit every
    # weight of an adapter, too, whether it is trainable: 5 ms on the layers of an 8B model.
    try:
        for switch in switched:
            switch._disable_adapters = True
        with torch.no_grad(), evaluation_mode(modules):
            yield
    finally:
        for switch in switched:
            switch._disable_adapters = False


def save_adapter(model: PeftModel, path: str | Path, also: Callable[[Path], None] = lambda _: None) -> None:
    """Write the adapter as peft does (`adapter_config.json`, `adapter_model.safetensors`), replacing `path` as a whole.

    Layers have the names of the model's authors, so that peft loads it onto their classes, too; with options that name
    layers beside `target_modules`, and were not translated, those here. Beside the two files `base_model.json` holds
    the base model's identity. The same adapter gives the same bytes. `also` may write more files into the folder before
    it gets its name.
    """
    _check_is_adapted(model)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in _weights(model).items()}
    config = LoraConfig(**{**model.active_peft_config.to_dict(), "inference_mode": True})
    original = {base_model(model).original_name(name): tensor for name, tensor in weights.items()}
    if original.keys() != weights.keys() and not _naming_options(config):
        weights, config.target_modules = original, _layers_of(original)
    base = base_model(model).config
    folder_of_base = folder_of(base)
    origin = {} if folder_of_base is None else hub_note(folder_of_base)
    if origin:  # where others find it, too, rather than a place in this machine's cache
        config.base_model_name_or_path, config.revision = origin["hub"].split("@")
    for option, names in vars(config).items():
        if isinstance(names, set):  # whose order would change the file from one process to the next
            setattr(config, option, sorted(names))
    with atomic_folder(path, overwrite=True) as folder:
        config.save_pretrained(str(folder))
        save_file(weights, folder / WEIGHTS_FILE, metadata={"format": "pt"})
        write_json(folder / BASE_FILE, config_identity(base) | origin)
        also(folder)


def load_adapter(
    model: nn.Module, path: str | Path, *, allow_other_model: bool = False, trainable: bool = False
) -> PeftModel:
    """Put the adapter in a folder, or of a hub id, on its base model, in place, frozen and in eval mode.

    An adapter that peft alone wrote has no `base_model.json`: its names and shapes are checked, its origin cannot be.
    One with the layer names of LLaDA's original code is translated. With `allow_other_model` one for another base model
    is loaded all the same, if its names and shapes fit. With `trainable` its weights, and no others, are trained on,
    in float32 and with its own options, dropout among them.

    Raises:
        FileNotFoundError: no folder, or one of peft's two files is not in it (pickled weights are not read).
        ValueError: not a LoRA adapter, an option that `adapter_config` refuses, another base model (see `identity`),
            target names that match nothing, or weights whose names or shapes do not fit. The model is as it was.
        TypeError: `model` is no masked diffusion model, or it has an adapter already.
    """
    # 1. What the files say, in the names of the model's layers.
    folder = checkpoint_folder(path, "adapter")
    _check_files(folder)
    config = read_adapter_config(folder / CONFIG_FILE, trainable=trainable)
    stored = shapes_in(folder / WEIGHTS_FILE)
    own = {base_model(model).own_name(name) for name in stored}
    if own != stored.keys():
        if options := _naming_options(config):
            raise ValueError(
                f"adapter {str(folder)!r} has original layer names and {options[0]} {getattr(config, options[0])!r}; "
                f"such an adapter is translated only without it"
            )
        config.target_modules = _layers_of(own)  # by other names peft would miss some, in silence
    # 2. Whether they are of this model.
    _check_targets(model, config)
    _check_ties(model, config)
    origin = read_json(folder / BASE_FILE) if (folder / BASE_FILE).exists() else {}
    base = base_model(model).config
    differing = identity_differences(origin, config_identity(base), folder_of(base))
    if differing and not allow_other_model:
        raise ValueError(
            f"adapter {str(folder)!r} was made for another model: {described(differing)}; choose that one, or set "
            f"allow_other_model"
        )
    # 3. The adapter in its place, with the weights of the file.
    config.base_model_name_or_path = None  # peft would warn of every other place that the model may lie in
    config.init_lora_weights = True  # any cheap start, since every weight is read
    adapted = _inject(model, config, seed=0)
    try:
        restore_adapter(adapted, folder)
    except ValueError:
        adapted.unload()
        raise
    if not trainable:
        adapted.requires_grad_(False)
    return adapted.eval()


def restore_adapter(model: PeftModel, path: str | Path) -> None:
    """Give the adapter of a model the weights in a folder, in place; what is trainable stays so.

    ValueError for weights whose names or shapes do not fit, or a damaged file; the adapter is then as it was.
    """
    file = Path(path) / WEIGHTS_FILE
    stored = shapes_in(file)
    names = {base_model(model).own_name(name): name for name in stored}
    expected = {name: tuple(tensor.shape) for name, tensor in _weights(model).items()}
    differences = weight_differences(expected, {own: stored[name] for own, name in names.items()})
    if differences:
        raise ValueError(f"adapter {str(path)!r} does not fit the model; {differences}")
    with safe_open(file, framework="pt") as weights:
        set_peft_model_state_dict(model, {own: weights.get_tensor(name) for own, name in names.items()})


def merge_adapter(model: PeftModel) -> nn.Module:
    """Add the adapter to the base weights, in place, and return the plain model, which has no peft layer left.

    Modules that were trained as a whole (`modules_to_save`) take the place of the base model's. TypeError for no
    PeftModel, ValueError for NaN or infinite weights or options that `load_adapter` refuses.
    """
    _check_adapters(model)
    for name, tensor in _weights(model).items():
        if not bool(tensor.isfinite().all()):
            raise ValueError(f"adapter weight {name} holds NaN or infinite values; nothing was merged")
    merged = model.merge_and_unload()
    merged.config.name_or_path = ""  # its weights are those of no folder any more
    return merged


def load_merged(
    model: str | Path, adapter: str | Path | None, *, allow_other_model: bool = False, **options: str
) -> nn.Module:
    """A model ready to decode, an adapter merged; options and errors are those of `load_model` and `load_adapter`."""
    loaded = load_model(model, **options)
    if adapter is None:
        return loaded
    return merge_adapter(load_adapter(loaded, adapter, allow_other_model=allow_other_model))


def adapter_fingerprint(path: str | Path) -> str:
    """16 hexadecimal digits that tell the adapter in a folder from others. FileNotFoundError if there is none."""
    folder = checkpoint_folder(path, "adapter")
    _check_files(folder)
    return files_digest([folder / WEIGHTS_FILE], (folder / CONFIG_FILE).read_bytes())


def _check_files(folder: Path) -> None:
    """FileNotFoundError if one of peft's two files is not in an adapter's folder."""
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            within = sorted(path.parent for path in folder.glob(f"[!.]*/{name}"))
            hint = f", such as {str(within[0])!r}" if within else ""
            raise FileNotFoundError(
                f"adapter {str(folder)!r} has no {name}; expected a folder written by save_adapter or peft{hint}"
            )


def _check_is_adapted(model: nn.Module) -> None:
    if not isinstance(model, PeftModel):
        raise TypeError(f"model must be a PeftModel, which has an adapter, got {type(model).__name__}")


def _check_adapters(model: PeftModel) -> None:
    _check_is_adapted(model)
    for name, config in model.peft_config.items():
        check_options(vars(config), f"model's adapter {name!r}")
        _check_ties(model, config)


def _without_adapter(model: PeftModel) -> list[nn.Module]:
    """The modules that run while the adapter is off, each once, and those that switch it: not what an adapter holds.

    They are looked up in every call, as adapters come and go. That takes 0.5 ms on the layers of an 8B model, where
    `model.modules()`, with all modules of the adapter, takes 1.4 ms.
    """
    found: dict[nn.Module, None] = {}
    waiting: list[nn.Module] = [model]
    while waiting:
        module = waiting.pop()
        if module in found:
            continue
        found[module] = None
        if isinstance(module, BaseTunerLayer):
            waiting.append(module.base_layer)
        elif isinstance(module, AuxiliaryTrainingWrapper):
            waiting.append(module.original_module)
        else:
            waiting.extend(module.children())
    return list(found)


def _check_ties(model: nn.Module, config: LoraConfig) -> None:
    """Refuse to train head or embeddings alone where they are one weight."""
    untied = [name for name in config.modules_to_save or [] if name.rpartition(".")[2] in ("lm_head", "embed_tokens")]
    if untied and base_model(model).config.tie_word_embeddings:
        raise ValueError(f"modules_to_save {untied} would untie the model's head and embeddings, which are one weight")


def _weights(model: PeftModel) -> dict[str, Tensor]:
    """The adapter's weights, as peft names them in a file."""
    # Embeddings stand among them only as modules_to_save; to find out by itself, peft would ask the model hub.
    return get_peft_model_state_dict(model, save_embedding_layers=False)


def _inject(model: nn.Module, config: LoraConfig, seed: int) -> PeftModel:
    device = next(model.parameters()).device
    with torch.random.fork_rng([device] if device.type == "cuda" else []), warnings.catch_warnings():
        # peft reads a property that transformers is about to rename; nothing a user could act on.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        torch.manual_seed(seed)
        adapted = get_peft_model(model, config, autocast_adapter_dtype=True)
    for module in adapted.modules():
        if isinstance(module, LoraLayer):
            for dropout in module.lora_dropout.values():
                if isinstance(dropout, nn.Dropout):
                    dropout.__class__ = CPUDropout
            if not config.use_dora:  # which takes the lengths of rows in its input's dtype
                module._cast_input_dtype = _input_under_autocast
    return adapted


def _input_under_autocast(states: Tensor, dtype: torch.dtype) -> Tensor:
    """An adapter's input in the dtype of its weights, float32; under autocast as it is.

    There peft casts a bfloat16 input to float32, and autocast casts it back for the matrix product: the same numbers
    for more traffic than the product's own.
    """
    return states if torch.is_autocast_enabled(states.device.type) else states.to(dtype)


def _check_targets(model: nn.Module, config: LoraConfig) -> None:
    """Refuse what peft would ignore in silence, and the head, which losses read as a plain weight."""
    base: Any = base_model(model)
    if hasattr(model, "peft_config"):
        raise TypeError("model has an adapter already; merge it (merge_adapter) or load the base model again")
    modules = dict(base.named_modules())
    linear = {name for name, module in modules.items() if isinstance(module, nn.Linear)}
    possible = {name for name in linear if modules[name] is not base.lm_head}
    targets = config.target_modules or []
    try:
        chosen = {name for name in modules if check_target_module_exists(config, name)}
    except re.error as error:
        raise ValueError(f"target_modules is {targets!r}, which is no regular expression: {error}") from error
    if isinstance(targets, str):
        missing = [] if chosen & linear else [targets]
    else:  # a name is a full one or its last components
        missing = sorted(t for t in targets if not (chosen and any(f".{name}".endswith(f".{t}") for name in linear)))
    if not targets:
        problem = "must name at least one linear module"
    elif missing:
        problem = f"{missing} match no linear module of the model"
    elif not chosen <= possible:
        wrong = listed(sorted(name or "itself" for name in chosen - possible))
        problem = f"match {wrong}; neither the output head nor what is no linear module can be adapted"
    else:
        return
    counts = Counter(name.rpartition(".")[2] for name in possible)
    choices = ", ".join(f"{name} ({count}x)" for name, count in sorted(counts.items()))
    raise ValueError(f"target_modules {problem}; choose among: {choices}")


def _naming_options(config: LoraConfig) -> list[str]:
    """The options in use that name layers, beside `target_modules`; such an adapter is not translated."""
    options = ("rank_pattern", "alpha_pattern", "layers_to_transform", "exclude_modules", "modules_to_save")
    return [option for option in options if getattr(config, option, None)]


def _layers_of(weights: Iterable[str]) -> set[str]:
    """Full names of the layers that an adapter's weights belong to."""
    return {name.removeprefix("base_model.model.").partition(".lora_")[0] for name in weights}
