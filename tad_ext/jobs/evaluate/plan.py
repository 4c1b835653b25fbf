"""What an evaluation is going to do, all checked before the model is loaded: problems, decoding runs, units of work."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tad_ext.data.tasks.task import Problem, Task
from tad_ext.decoding import PRESETS, DecodeConfig, parse_policy
from tad_ext.decoding.inputs import SpecialTokens, check_compatible, check_device, check_prompts
from tad_ext.decoding.policies.base import fingerprint_of
from tad_ext.evaluation.measure import prompts_of
from tad_ext.evaluation.results import ONE_PER_STEP, PRESET, method_of, problems_digest
from tad_ext.evaluation.runs import policy_runs, preset_run, sweep
from tad_ext.files import output_folder
from tad_ext.jobs.common import place_of_process
from tad_ext.jobs.evaluate.config import EvaluateConfig
from tad_ext.models.device import resolve_dtype
from tad_ext.models.identity import model_identity
from tad_ext.models.loading import load_config, load_tokenizer
from tad_ext.models.lora import adapter_fingerprint
from tad_ext.settings import values_of
from tad_ext.sharing.work import Place, Unit, units_of

UNITS = 16  # most units that the problems of a run are cut into, ...
LEAST = 32  # ... and the fewest problems of a unit

Key = tuple[str, int]
"""Of a response: the run's name, and the place of the problem in the list."""


@dataclass(frozen=True)
class EvaluationPlan:
    """Everything that is known before the model is loaded."""

    config: EvaluateConfig
    task: Task
    tokenizer: Any
    problems: Sequence[Problem]
    prompts: Sequence[Sequence[int]]
    runs: Mapping[str, DecodeConfig]  #: by name
    method: str | None  #: the sweep's curve
    left_out: str  #: presets that are not in the suite, and why
    settings: Mapping[str, Any]  #: as the report has them
    identity: Mapping[str, Any]  #: all that the responses depend on, in plain JSON values
    output: Path
    device: str
    place: Place

    @classmethod
    def make(cls, config: EvaluateConfig) -> "EvaluationPlan":
        """Checks every setting, the checkpoint's folder and every prompt, and makes the output folder.

        Raises ValueError/TypeError naming the setting, its value and what was expected; FileNotFoundError for no such
        problem file.
        """
        # 1. Which runs, which problems, where.
        place, device = place_of_process(config.device)
        swept = [] if config.policy is None else sweep(config.policy, config.thresholds)
        if config.policies:
            policy_runs(config.policies, config.decoding)  # of which none is named twice
        further = [str(parse_policy(policy)) for policy in config.policies]
        policies = list(dict.fromkeys([ONE_PER_STEP] * config.one_per_step + swept + further))
        if config.suite and config.presets:
            raise ValueError(f"suite is true and presets is {list(config.presets)}; expected none, they are among it")
        if not policies and not config.presets and not config.suite:
            raise ValueError(
                "thresholds and policies are empty, there are no presets and one_per_step is false; expected at least "
                "one decoding run"
            )
        task, problems, lengths = config.problems(config.decoding.seed)
        if twice := [id for id, times in Counter(problem.id for problem in problems).items() if times > 1]:
            raise ValueError(f"task {task.name!r} gives the problem id {twice[0]!r} twice, expected once")
        stops = task.stop_strings if config.stop_strings is None else config.stop_strings
        decoding = replace(config.decoding, **lengths, stop_strings=stops)
        runs = policy_runs(policies, decoding) if policies else {}
        runs |= _preset_runs(config, decoding)
        model_config = load_config(config.model)
        left_out: dict[str, str] = {}
        if config.suite:
            suite, left_out = suite_runs(model_config, device, decoding, runs)
            runs |= suite
        if not runs:
            raise ValueError(f"suite is true, and no preset goes with the other settings: {_told(left_out)}")
        if (Path(config.output) / "config.json").exists():
            raise ValueError(f"output is '{config.output}', a checkpoint's folder; expected another one")

        # 2. Whether the model takes them.
        dtype = resolve_dtype(config.dtype)
        identity = model_identity(config.model)
        adapter = None if config.adapter is None else adapter_fingerprint(config.adapter)
        tokenizer = load_tokenizer(config.model)
        prompts = prompts_of(task, problems, tokenizer, config.prompt)
        lengths_seen: set[int] = set()
        for run, chosen in runs.items():
            _check(run, chosen, [] if chosen.gen_length in lengths_seen else prompts, model_config, device)
            lengths_seen.add(chosen.gen_length)

        # 3. What the responses depend on, and last of all the folder.
        return cls(
            config=config,
            task=task,
            tokenizer=tokenizer,
            problems=problems,
            prompts=prompts,
            runs=runs,
            method=method_of(swept[-1]) if swept else None,
            left_out=_told(left_out),
            settings=values_of(config) | lengths | {"stop_strings": list(stops)},
            identity={
                "model": identity,
                "adapter": adapter,
                "dtype": str(dtype or model_config.dtype or "auto").removeprefix("torch."),
                "task": task.name,
                **{name: getattr(config, name) for name in ("split", "prompt", "prompt_format", "shots")},
                **({"teacher_prompt": config.teacher_prompt} if config.prompt == "teacher" else {}),
                "problems": len(problems),
                "problems_digest": problems_digest(problems),
                "prompts": _digest([[problem.reference, list(prompt)] for problem, prompt in zip(problems, prompts)]),
                "runs": {run: values_of(chosen) | fingerprint_of(chosen.policy) for run, chosen in runs.items()},
            },
            output=output_folder(config.output),
            device=device,
            place=place,
        )

    @property
    def work(self) -> str:
        """A hash of all that processes must agree on to share the work."""
        return _digest(self.identity)

    def units(self) -> list[Unit[Key]]:
        """All the work, done or not: a process decodes units of one run together."""
        size = max(LEAST, -(-len(self.problems) // UNITS))
        keys = {run: [(run, number) for number in range(len(self.problems))] for run in self.runs}
        return [unit for place, run in enumerate(keys) for unit in units_of(keys[run], size, group=f"{place:03d}-")]


def _preset_runs(config: EvaluateConfig, decoding: DecodeConfig) -> dict[str, DecodeConfig]:
    """A run for each preset, which decides whatever it names, but for lengths that are given."""
    if len(set(config.presets)) < len(config.presets):
        raise ValueError(f"presets is {list(config.presets)}; expected none twice")
    runs = {}
    for name in config.presets:
        lengths: dict[str, Any] = config.lengths(preset_run(name, config.decoding)[1])
        run, chosen = preset_run(name, replace(decoding, **lengths), kept=lengths)
        runs[run] = chosen
    return runs


def suite_runs(
    model_config: Any, device: str, decoding: DecodeConfig, others: Mapping[str, DecodeConfig]
) -> tuple[dict[str, DecodeConfig], dict[str, str]]:
    """A run of every preset that a model of this configuration can decode by; and which are left out, and why.

    They have the lengths of `decoding`, but that a preset whose block is the whole canvas keeps it so, if the model has
    no blocks of its own. Left out are also those that come to the same settings as one before, or one of `others`.
    """
    runs: dict[str, DecodeConfig] = {}
    left_out: dict[str, str] = {}
    for name, published in PRESETS.items():
        whole = published.block_length == published.gen_length and model_config.causal_block_length is None
        lengths = replace(decoding, block_length=decoding.gen_length) if whole else decoding
        try:
            run, chosen = preset_run(name, lengths, kept=("gen_length", "block_length"))
            _check(run, chosen, [], model_config, device)
        except (ValueError, TypeError) as error:
            left_out[name] = str(error)
            continue
        same = [other for other, known in {**others, **runs}.items() if values_of(known) == values_of(chosen)]
        if same:
            left_out[name] = f"decodes as {same[0].removeprefix(PRESET)}"
        else:
            runs[run] = chosen
    return runs, left_out


def _told(left_out: Mapping[str, str]) -> str:
    return "; ".join(f"{name}: {reason}" for name, reason in left_out.items())


def _check(run: str, config: DecodeConfig, prompts: Sequence[Sequence[int]], model_config: Any, device: str) -> None:
    """ValueError, TypeError, naming the run, if a model of this configuration cannot decode it."""
    only_configured: Any = SimpleNamespace(config=model_config)
    try:
        check_device(device, config)
        check_compatible(only_configured.config, config)
        tokens = SpecialTokens.of(only_configured, config)
        check_prompts(prompts, model=only_configured, config=config, mask=tokens.mask)
    except (ValueError, TypeError) as error:
        raise type(error)(f"run {run}: {error}") from error


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
