"""The folder that `tad generate` writes to, response by response, so that a run which was stopped can be continued.

settings.json      what the responses depend on
generations.jsonl  a line per response, written when it is finished; at the end they are put in the order of the prompts
trace.jsonl        likewise, with --trace
"""

from __future__ import annotations

import hashlib
import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tad_ext.decoding.traces import TRACE, Trace
from tad_ext.files import (
    JsonLinesWriter,
    json_lines,
    output_folder,
    remove_leftovers,
    tried_folder,
    write_json,
    write_text,
)
from tad_ext.jobs.generate.config import GenerateConfig
from tad_ext.jobs.generate.session import Session
from tad_ext.models.identity import described, identity_differences, model_identity
from tad_ext.models.lora import WEIGHTS_FILE as ADAPTER_FILE
from tad_ext.models.tokenizers import tokenizer_hash
from tad_ext.settings import options_of, values_of

SETTINGS, GENERATIONS = "settings.json", "generations.jsonl"
Row = dict[str, Any]

# Responses depend on the batch size and the device by no more than rounding, as those of `decode` do.
_FREE = (
    *("prompt", "prompts", "interactive", "output", "device", "allow_other_model"),
    *("batch_size", "cuda_graphs", "sync_every"),
)
_DEFAULTS = {
    option.name: json.loads(json.dumps(option.default)) for option in options_of(GenerateConfig) if not option.required
}
_INFORMATIVE = ("model", "adapter")  # paths; identity and fingerprint tell whether they are the same


class OutputFolder:
    """A context manager for writing: `add` inside the block; a block that ends without an error puts lines in order.

    Attributes:
        finished: the responses that are there, by number of the prompt.

    Raises:
        ValueError: the folder holds something else than responses to the same prompts with the same settings.
    """

    def __init__(self, session: Session, prompts: list[str]) -> None:
        self.path = Path(str(session.config.output))
        self.settings = _settings(session)
        self._rows: dict[str, dict[int, Row]] = {GENERATIONS: _read_lines(self.path / GENERATIONS)}
        if session.config.trace:
            self._rows[TRACE] = _read_lines(self.path / TRACE)
        if self.finished:
            self._check_settings(session.config)
            self._check_prompts(prompts)
        whole = set.intersection(*(set(rows) for rows in self._rows.values()))
        self._rows = {name: {index: rows[index] for index in whole} for name, rows in self._rows.items()}

    @property
    def finished(self) -> dict[int, Row]:
        """The responses so far."""
        return self._rows[GENERATIONS]

    def try_out(self) -> None:
        """ValueError if nothing can be written there; before the model is loaded."""
        tried_folder(self.path)

    def __enter__(self) -> OutputFolder:
        output_folder(self.path)
        for name in self._rows:
            remove_leftovers(self.path, name)
        write_json(self.path / SETTINGS, self.settings)
        self._write_in_order()  # without what a killed run has left half written
        self._open = ExitStack()
        self._files = {name: self._open.enter_context(JsonLinesWriter(self.path / name)) for name in self._rows}
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._open.close()
        if kind is None:
            self._write_in_order()

    def add(self, response: Row, trace: Trace | None) -> None:
        """Writes a finished response; when this returns, it outlives the process."""
        # The response last: a trace without one is dropped when the run is continued.
        rows = {GENERATIONS: response} if trace is None else {TRACE: vars(trace), GENERATIONS: response}
        for name, row in rows.items():
            self._files[name].add(row)
            self._rows[name][row["index"]] = row

    def _write_in_order(self) -> None:
        for name, rows in self._rows.items():
            write_text(self.path / name, json_lines(rows[index] for index in sorted(rows)))

    def _check_settings(self, config: GenerateConfig) -> None:
        file = self.path / SETTINGS
        if not file.is_file():
            raise ValueError(f"output: '{self.path}' holds {GENERATIONS} but no {SETTINGS}; choose another folder")
        try:
            found = dict(json.loads(file.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise ValueError(f"output: {file} is damaged ({error}); choose another folder") from error
        noted = found.pop("model_identity", found.pop("model_fingerprint", {}))  # the latter of an earlier version
        differing = identity_differences(noted, self.settings["model_identity"], config.model)
        if differing and not config.allow_other_model:
            raise ValueError(
                f"output: the responses in '{self.path}' were made with another model: {described(differing)}; "
                f"choose another folder or that model, or set allow_other_model"
            )
        if differing:
            self.settings["model_identity"] = noted  # the folder stays that model's
        for name, ours in self.settings.items():
            theirs = found.get(name, _DEFAULTS.get(name, ours))  # of before the setting was there
            if name not in (*_INFORMATIVE, "model_identity") and theirs != ours:
                raise ValueError(
                    f"output: the responses in '{self.path}' were made with {name} = {theirs!r}, this run has "
                    f"{ours!r}; choose another folder or the same settings"
                )

    def _check_prompts(self, prompts: list[str]) -> None:
        for index, row in self.finished.items():
            if index >= len(prompts):
                raise ValueError(
                    f"prompts: '{self.path}' answers prompt number {index}, this run has {len(prompts)} only (from 0); "
                    f"choose another folder or the same prompts"
                )
            if row.get("prompt") != prompts[index]:
                raise ValueError(
                    f"prompts: number {index} of '{self.path}' is {str(row.get('prompt'))[:80]!r}, of this run "
                    f"{prompts[index][:80]!r}; choose another folder or the same prompts"
                )


def _settings(session: Session) -> Row:
    """What the responses depend on."""
    config, adapter = session.config, session.config.adapter
    settings = {name: value for name, value in values_of(config).items() if name not in _FREE}
    template = session.tokenizer.chat_template if config.chat else None
    return settings | {
        "model_identity": model_identity(config.model),
        "adapter_fingerprint": None if adapter is None else _adapter_fingerprint(adapter),
        "tokenizer": tokenizer_hash(session.tokenizer),
        "eos_token_ids": list(session.tokens.end),
        "chat_template": None if template is None else hashlib.sha256(str(template).encode()).hexdigest()[:16],
    }


def _adapter_fingerprint(adapter: str) -> str:
    file = Path(adapter) / ADAPTER_FILE
    if not file.is_file():
        raise FileNotFoundError(f"adapter '{adapter}' has no {ADAPTER_FILE}; expected a folder of tad distill")
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:16]


def _read_lines(file: Path) -> dict[int, Row]:
    """The rows of a file by index, without a last line that a killed run has left half written."""
    rows: dict[int, Row] = {}
    for number, line in enumerate(file.read_bytes().split(b"\n")[:-1] if file.is_file() else [], 1):
        try:
            row = json.loads(line)
            index = row["index"]
        except (ValueError, KeyError, TypeError):
            index = None
        if type(index) is not int or index < 0 or index in rows:
            raise ValueError(
                f"output: {file}, line {number} is not what tad generate writes, one line per prompt with its index; "
                f"choose another folder"
            )
        rows[index] = row
    return rows
