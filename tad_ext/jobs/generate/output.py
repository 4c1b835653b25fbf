"""The folder that `tad generate` writes to, response by response, so that a run which was stopped can be continued.

settings.json      what the responses depend on
generations.jsonl  a record per response, written when it is finished; at the end they are put in the prompts' order
trace.jsonl        likewise, with --trace
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tad_ext.decoding.traces import TRACE, Trace
from tad_ext.files import add_json_line, json_lines, output_folder, remove_leftovers, write_json, write_text
from tad_ext.jobs.common import is_another_model
from tad_ext.jobs.generate.config import GenerateConfig
from tad_ext.jobs.generate.session import Session
from tad_ext.models.checkpoint import read_json
from tad_ext.models.hub import hub_note
from tad_ext.models.identity import model_identity
from tad_ext.models.lora import adapter_fingerprint
from tad_ext.models.tokenizers import tokenizer_hash
from tad_ext.settings import options_of, values_of

SETTINGS, GENERATIONS = "settings.json", "generations.jsonl"
Record = dict[str, Any]

# Responses depend on the batch size and the device by no more than rounding, as those of `decode` do.
_FREE = (
    *("prompt", "prompts", "interactive", "output", "device", "allow_other_model"),
    *("batch_size", "cuda_graphs", "sync_every"),
)
_DEFAULTS = {
    option.name: json.loads(json.dumps(option.default)) for option in options_of(GenerateConfig) if not option.required
}
_INFORMATIVE = ("model", "adapter", "model_identity")  # paths; and the identity, which is compared before


class OutputFolder:
    """What is there is read at first: `finished` are the responses by number of the prompt. `add` works within a
    `writing` block. Raises ValueError for anything else than responses to the same prompts with the same settings.
    """

    def __init__(self, session: Session, prompts: list[str]) -> None:
        self.path = Path(str(session.config.output))
        self.settings = _settings(session)
        names = [GENERATIONS, TRACE] if session.config.trace else [GENERATIONS]
        records = {name: _read_records(self.path / name) for name in names}
        if records[GENERATIONS]:
            self._check_settings(session.config)
            self._check_prompts(prompts, records[GENERATIONS])
        whole = set.intersection(*map(set, records.values()))
        self._records = {name: {index: found[index] for index in whole} for name, found in records.items()}
        self.finished = self._records[GENERATIONS]

    @contextmanager
    def writing(self) -> Iterator[None]:
        """A block that ends without an error puts the records in order."""
        output_folder(self.path)
        for name in self._records:
            remove_leftovers(self.path, name)
        write_json(self.path / SETTINGS, self.settings)
        self._write_in_order()  # without what a killed run has left half written
        yield
        self._write_in_order()

    def add(self, response: Record, trace: Trace | None) -> None:
        """Writes a finished response; when this returns, it outlives the process."""
        # The response last: a trace without one is dropped when the run is continued.
        records = {GENERATIONS: response} if trace is None else {TRACE: vars(trace), GENERATIONS: response}
        for name, record in records.items():
            add_json_line(self.path / name, record)
            self._records[name][record["index"]] = record

    def _write_in_order(self) -> None:
        for name, records in self._records.items():
            write_text(self.path / name, json_lines(records[index] for index in sorted(records)))

    def _check_settings(self, config: GenerateConfig) -> None:
        try:
            found = read_json(self.path / SETTINGS)
        except ValueError as error:
            raise ValueError(
                f"output: '{self.path}' holds {GENERATIONS}, but {error}; choose another folder"
            ) from error
        noted: Any = found.get("model_identity", found.get("model_fingerprint", {}))  # the latter of an earlier version
        if is_another_model(noted, self.settings["model_identity"], config):
            self.settings["model_identity"] = noted  # the folder stays that model's
        for name, ours in self.settings.items():
            theirs = found.get(name, _DEFAULTS.get(name, ours))  # of before the setting was there
            if name not in _INFORMATIVE and theirs != ours:
                raise ValueError(
                    f"output: the responses in '{self.path}' were made with {name} = {theirs!r}, this run has "
                    f"{ours!r}; choose another folder or the same settings"
                )

    def _check_prompts(self, prompts: list[str], responses: dict[int, Record]) -> None:
        for index, response in responses.items():
            if index >= len(prompts):
                differing = f"'{self.path}' answers prompt number {index}, this run has {len(prompts)} only (from 0)"
            elif response.get("prompt") != prompts[index]:
                asked = str(response.get("prompt"))[:80]
                differing = f"number {index} of '{self.path}' is {asked!r}, of this run {prompts[index][:80]!r}"
            else:
                continue
            raise ValueError(f"prompts: {differing}; choose another folder or the same prompts")


def _settings(session: Session) -> Record:
    """What the responses depend on."""
    config = session.config
    settings = {name: value for name, value in values_of(config).items() if name not in _FREE}
    template = session.tokenizer.chat_template if config.chat else None
    return settings | {
        "model_identity": model_identity(config.model) | hub_note(config.model),
        "adapter_fingerprint": None if config.adapter is None else adapter_fingerprint(config.adapter),
        "tokenizer": tokenizer_hash(session.tokenizer),
        "eos_token_ids": list(session.tokens.end),
        "chat_template": None if template is None else _hash(str(template).encode()),
    }


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _read_records(file: Path) -> dict[int, Record]:
    """The records of a file by index, without a last line that a killed run has left half written."""
    records: dict[int, Record] = {}
    for number, line in enumerate(file.read_bytes().split(b"\n")[:-1] if file.is_file() else [], 1):
        try:
            record = json.loads(line)
            index = record["index"]
        except (ValueError, KeyError, TypeError):
            index = None
        if type(index) is not int or index < 0 or index in records:
            raise ValueError(
                f"output: {file}, line {number} is not what tad generate writes, one line per prompt with its index; "
                f"choose another folder"
            )
        records[index] = record
    return records
