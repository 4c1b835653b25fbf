"""The settings of a command that trains an adapter, whatever it is trained on; without torch."""

from dataclasses import dataclass

from tad_ext.distillation.evaluation_settings import EvaluationSettings
from tad_ext.distillation.lora_settings import LoRASettings
from tad_ext.distillation.settings import OBJECTIVES, TrainingSettings
from tad_ext.settings import Device, DType, EosTail, Index, PathText, Settings, group, setting


@dataclass(frozen=True, kw_only=True)
class AdapterRunSettings(Settings):
    """From a model to an adapter in a folder; the defaults are those published for TAD (arXiv 2605.09536)."""

    model: PathText = setting(
        help="folder or hub id of the model to train; with its adapter off it is also the teacher"
    )
    teacher: PathText | None = setting(
        None,
        help="folder or hub id of another model to be the teacher, frozen, of the same tokens; none: the model itself",
    )
    output: PathText = setting(help="folder to write the adapter, the checkpoints and the loss curve into")
    eos_tail: EosTail = setting(
        "all",
        help="what is learnt behind a response's first end-of-sequence token: all (as published), one (the next token) "
        "or none; states that then have nothing to learn are left out",
    )
    objective: str = setting(
        "tad", help=f"what is learnt: {', '.join(OBJECTIVES)}; it refuses settings that only others have"
    )

    lora: LoRASettings = group(LoRASettings)
    adapter: PathText | None = setting(
        None, help="folder or hub id of an adapter to start from instead of a new one; its LoRA options are its own"
    )
    allow_other_model: bool = setting(False, help="start from it although it was trained on another base model")

    training: TrainingSettings = group(TrainingSettings)
    save_every: Index = setting(
        500, help="also save adapter and optimizer every so many optimizer steps, to go on from; 0: only when stopped"
    )
    keep_checkpoints: Index = setting(2, help="how many of these stay, the latest ones; 0: all")
    tracker: tuple[str, ...] | None = setting(
        None,
        help="experiment trackers to write every step to, as accelerate names them: tensorboard, wandb, mlflow, ...",
    )
    evaluation: EvaluationSettings = group(EvaluationSettings)
    overwrite: bool = setting(False, help="replace the adapter and checkpoints in output once this run is complete")
    device: Device = setting("auto", help="auto, cpu, cuda or cuda:N; with several processes, each has its own GPU")
    gradient_checkpointing: bool = setting(
        False, help="keep no activations inside of layers, compute them again in backward: less memory, slower"
    )
    shard_model: bool = setting(
        False, help="spread the frozen layers over the processes (FSDP2): less memory on each, more traffic"
    )
    dtype: DType = setting("auto", help="of the frozen model, auto: as stored; the adapter is float32")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.objective not in OBJECTIVES:
            raise ValueError(f"objective must be one of {', '.join(OBJECTIVES)}, got {self.objective!r}")
