"""`tad lm-eval`: tasks of lm-evaluation-harness, decoded by tad_ext."""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Column, Table

# It says what to install where lm_eval is missing.
from tad_ext.evaluation.harness import Generation, TadLM, cache_in_json, check_code_tasks, code_eval_in_sandbox  # isort: skip
from lm_eval import simple_evaluate
from lm_eval.loggers import EvaluationTracker
from lm_eval.tasks import TaskManager
from lm_eval.utils import make_table

from tad_ext.data.sandbox.run import check_sandbox
from tad_ext.decoding import TOKENS_PER_FORWARD_DEFINITION
from tad_ext.decoding.inputs import check_compatible, check_device
from tad_ext.decoding.policies.base import fingerprint_of
from tad_ext.evaluation.settings import HarnessSettings
from tad_ext.files import output_folder, tried_folder
from tad_ext.jobs.common import decoding_of
from tad_ext.jobs.lm_eval.config import LmEvalConfig
from tad_ext.models.device import device_of_process
from tad_ext.models.hub import hub_note
from tad_ext.models.identity import identity_fingerprint, model_identity
from tad_ext.models.loading import load_config, load_tokenizer
from tad_ext.models.lora import adapter_fingerprint
from tad_ext.settings import options_of, values_of

# Answers depend on these by no more than rounding.
_FREE = ("batch_size", "cuda_graphs", "preset")


def lm_eval(config: LmEvalConfig) -> dict[str, Any] | None:
    """Runs the tasks, writes and returns the harness's results with the entry "tad_ext"; None in all processes but the
    first.

    Raises ValueError and TypeError for a wrong setting, an unknown task or one that would run code outside the sandbox,
    SandboxError where programs are not run, before the model is loaded; what `load_merged` raises.
    """
    # 1. Everything that can be wrong, before the model is loaded.
    config = replace(config, device=str(device_of_process(config.device)), decoding=decoding_of(config))
    tokenizer = _checked(config)
    tracker = EvaluationTracker(output_path=config.output)
    source = {"pretrained": config.model} | ({} if config.adapter is None else {"peft": config.adapter})
    manager = TaskManager(include_path=config.include_path, metadata=source)
    names = _known(config.tasks, manager)
    with code_eval_in_sandbox(unprotected=config.unprotected), cache_in_json():
        loaded = manager.load(names)
        check_code_tasks(loaded["tasks"])
        if any(getattr(task, "UNSAFE_CODE", False) for task in loaded["tasks"].values()):
            check_sandbox(unprotected=config.unprotected)
        manager.load = lambda _: loaded  # what was looked at is what is run

        # 2. The harness, with our model.
        lm = TadLM(config.load(), tokenizer, config)
        results = simple_evaluate(
            lm,
            model_args=source,
            tasks=names,
            num_fewshot=config.num_fewshot,
            batch_size=config.decoding.batch_size,
            device=config.device,
            use_cache=None if config.use_cache is None else f"{config.use_cache}-{_fingerprint(config)}",
            limit=config.limit,
            log_samples=config.log_samples,
            evaluation_tracker=tracker,
            system_instruction=config.system_instruction,
            apply_chat_template=config.apply_chat_template,
            fewshot_as_multiturn=config.apply_chat_template and config.fewshot_as_multiturn,
            task_manager=manager,
            confirm_run_unsafe_code=True,  # in the sandbox, as was checked
        )
    gathered = lm.gather_object((lm.generations, lm.truncated))
    if gathered is None:
        return None

    # 3. Its files, with what decoding took.
    generations = [one for part, _ in gathered for one in part]
    results["tad_ext"] = {
        "definitions": {"tokens_per_forward": TOKENS_PER_FORWARD_DEFINITION},
        "generation": _totals(generations),
        "truncated_prompts": sum(count for _, count in gathered),
        "model_fingerprint": identity_fingerprint(model_identity(config.model)),
        **hub_note(config.model),
        "settings": values_of(config),
    }
    samples = results.pop("samples", {})
    _add_counts(samples, generations)
    _print(results)  # first: a terminal is never full
    print(f"written to {_write(results, samples, tracker)}")
    return {**results, "samples": samples}


def _checked(config: LmEvalConfig) -> Any:
    """The tokenizer; ValueError for settings that do not go together with it, with the device or with the folders."""
    check_device(config.device, config.decoding)
    check_compatible(load_config(config.model), config.decoding)
    if (Path(config.output) / "config.json").exists():
        raise ValueError(f"output is '{config.output}', a checkpoint's folder; expected another one")
    if config.include_path is not None and not Path(config.include_path).is_dir():
        raise ValueError(f"include_path must be a folder of YAML files, got '{config.include_path}'")
    if os.environ.get("RANK", "0") == "0":
        tried_folder(config.output)
    tokenizer = load_tokenizer(config.model)
    if config.apply_chat_template and not tokenizer.chat_template:
        raise ValueError(f"apply_chat_template is true, and the tokenizer in '{config.model}' has no chat template")
    return tokenizer


def _known(tasks: Sequence[str], manager: Any) -> list[str]:
    """The names that the tasks stand for, patterns such as mmlu_* among them. ValueError for an unknown one."""
    found: list[str] = []
    for task in tasks:
        names = [task] if task.endswith(".yaml") else manager.match_tasks([task])
        if not names or (task.endswith(".yaml") and not Path(task).is_file()):
            raise ValueError(
                f"tasks holds '{task}', which is neither a YAML file nor a task, group or tag of the harness; "
                f"lm_eval ls tasks lists these"
            )
        found += names
    return list(dict.fromkeys(found))


def _fingerprint(config: LmEvalConfig) -> str:
    """Of what an answer depends on beside the request: the model, its adapter and the settings."""
    values = values_of(config)
    used = [option.name for option in options_of(HarnessSettings) if option.name not in _FREE]
    chosen = {name: values[name] for name in used} | fingerprint_of(config.decoding.policy)
    digest = hashlib.sha256(json.dumps([model_identity(config.model), config.dtype, chosen]).encode())
    if config.adapter is not None:
        digest.update(adapter_fingerprint(config.adapter).encode())
    return digest.hexdigest()[:16]


def _totals(generations: Iterable[Generation]) -> dict[str, dict[str, Any]]:
    """Of the responses that were decoded, by task; those from a cache took nothing."""
    totals: dict[str, dict[str, Any]] = {}
    for one in generations:
        found = totals.setdefault(str(one.task), {"responses": 0, "response_tokens": 0, "forwards": 0})
        found["responses"] += 1
        found["response_tokens"] += one.tokens
        found["forwards"] += one.forwards
    return {
        name: found | {"tokens_per_forward": found["response_tokens"] / found["forwards"]}
        for name, found in totals.items()
    }


def _add_counts(samples: dict[str, list[dict[str, Any]]], generations: Iterable[Generation]) -> None:
    """To each sample the tokens and forwards of its responses; none for those from a cache."""
    took = {(one.task, one.document, one.sample): one for one in generations}
    for name, found in samples.items():
        for sample in found:
            responses = sample["resps"][0] if len(sample["resps"]) == 1 else []
            counts = [took.get((name, sample["doc_id"], number)) for number in range(len(responses))]
            if any(counts):
                sample["response_tokens"] = [one and one.tokens for one in counts]
                sample["forwards"] = [one and one.forwards for one in counts]


def _write(results: dict[str, Any], samples: dict[str, Any], tracker: Any) -> Path:
    """Writes the harness's files, and returns their folder. OSError if they are not there: the harness only warns."""
    output_folder(tracker.output_path)
    tracker.save_results_aggregated(results=results, samples=samples or None)
    for name, found in samples.items():
        tracker.save_results_samples(task_name=name, samples=found)
    written = list(Path(tracker.output_path).rglob(f"*_{tracker.date_id}.json*"))
    if len(written) != 1 + len(samples):
        told = ", ".join(map(str, written)) or "none of them"
        raise OSError(f"not all results could be written to {tracker.output_path}, but {told}")
    return written[0].parent


def _print(results: dict[str, Any]) -> None:
    print(make_table(results))
    if "groups" in results:
        print(make_table(results, "groups"))
    truncated, generation = (results["tad_ext"][name] for name in ("truncated_prompts", "generation"))
    if truncated:
        print(f"{truncated} prompts were too long for the model and lost their beginning")
    if not generation:
        return
    table = Table(
        "task", *(Column(name, justify="right") for name in ("responses", "tokens", "forwards", "tokens / forward"))
    )
    for name, found in generation.items():
        counts = (str(found[key]) for key in ("responses", "response_tokens", "forwards"))
        table.add_row(name, *counts, f"{found['tokens_per_forward']:.2f}")
    console = Console(markup=False)  # a task's name may hold brackets
    console.print(table)
    console.print(f"tokens_per_forward: {TOKENS_PER_FORWARD_DEFINITION}", style="dim", highlight=False)
