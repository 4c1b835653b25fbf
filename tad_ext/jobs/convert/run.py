"""`tad convert`: trajectory files from the published JSON lines, and such lines from trajectory files."""

from collections import Counter, defaultdict
from pathlib import Path

from tqdm import tqdm

from tad_ext.data.jsonl import stream_jsonl
from tad_ext.data.tasks.prompts import text_ids
from tad_ext.data.trajectories.files import Trajectory, part_files, part_name, read_part, repeats, write_part
from tad_ext.data.trajectories.fits import run_misfits
from tad_ext.data.trajectories.metadata import MAX_PART_RECORDS, TrajectoryMetadata
from tad_ext.data.trajectories.published_jsonl import RecordReader, is_summary, to_record
from tad_ext.files import atomic_folder, atomic_path, json_lines, tried_file, tried_folder
from tad_ext.jobs.convert.config import ConvertConfig
from tad_ext.models.loading import load_config, load_tokenizer
from tad_ext.models.tokenizers import tokenizer_hash


def convert(config: ConvertConfig) -> None:
    """Writes `output`, complete or not at all, as the files are read.

    Raises ValueError for an output that cannot be written to, for a line or a file that cannot be converted, with its
    place; FileExistsError for an output folder that holds files, FileNotFoundError for no such file.
    """
    if config.jsonl:
        _from_jsonl(config)
    else:
        _to_jsonl(config)


def _from_jsonl(config: ConvertConfig) -> None:
    tried_folder(config.output, empty=True)
    for path in config.jsonl:
        if not Path(path).is_file():
            raise FileNotFoundError(f"jsonl is {path!r}, which is not a file")
    reader = _reader(config)
    size = sum(Path(path).stat().st_size for path in config.jsonl)
    with atomic_folder(config.output) as folder, tqdm(total=size, unit="B", unit_scale=True, disable=None) as bar:
        writer = PartWriter(folder)
        for path in config.jsonl:
            for place, record in stream_jsonl(path, argument="jsonl", progress=bar.update):
                if is_summary(record):
                    continue
                try:
                    writer.add(*reader(record))
                except (ValueError, TypeError) as error:
                    raise ValueError(f"{place}: {error}") from error
        writer.finish()
        if not writer.counts:
            raise ValueError(f"jsonl is {', '.join(config.jsonl)}: expected trajectories, found none")
    for run, number in writer.counts.items():
        print(f"{number} trajectories of {run.task}, {run.gen_length} positions each")
    print(f"written to {config.output}")


def _reader(config: ConvertConfig) -> RecordReader:
    tokenizer, mask = load_tokenizer(config.model), load_config(config.model).mask_token_id
    own_hash = tokenizer_hash(tokenizer)
    run = None
    if config.temperature is not None:
        run = TrajectoryMetadata(
            model=config.model,
            model_revision="",  # which weights decoded them is not known
            tokenizer_hash=own_hash,
            task="",
            split="train",
            teacher_prompt="user",
            mask_token_id=mask,
            gen_length=0,
            block_length=config.block_length,
            policy=str(config.policy),
            block_add_threshold=1.0,
            decoded_token_threshold=1.0,
            forced_progress="row",
            hide_future_blocks=False,
            temperature=config.temperature,
            top_k=None,
            top_p=config.top_p,
            cache="none",
            seed=config.seed,
            stop_at_eos=False,
            dtype="bfloat16",
            keep="correct",
        )
    return RecordReader(tokenizer, mask, own_hash, run, config.task, config.split)


class PartWriter:
    """Writes trajectories as they come, those of a run into parts of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.counts: Counter[TrajectoryMetadata] = Counter()
        self._seen: set[tuple[TrajectoryMetadata, str, int]] = set()
        self._waiting: dict[TrajectoryMetadata, list[Trajectory]] = defaultdict(list)
        self._parts = 0

    def add(self, run: TrajectoryMetadata, item: Trajectory) -> None:
        """ValueError for one that was there already."""
        name = (run, *item.key)
        if name in self._seen:
            raise ValueError(f"sample {item.sample} of problem {item.id!r} stands in an earlier line, too")
        self._seen.add(name)
        self.counts[run] += 1
        self._waiting[run].append(item)
        if len(self._waiting[run]) == MAX_PART_RECORDS:
            self._write(run)

    def finish(self) -> None:
        """Writes what is left."""
        for run in list(self._waiting):
            self._write(run)

    def _write(self, run: TrajectoryMetadata) -> None:
        items = self._waiting.pop(run)
        write_part(self.folder / part_name(self._parts, [item.key for item in items]), run, items)
        self._parts += 1


def _to_jsonl(config: ConvertConfig) -> None:
    output = tried_file(config.output)
    files = [path for folder in config.trajectories for path in part_files(folder)]
    if not files:
        raise ValueError(f"trajectories is {', '.join(config.trajectories)}: expected files part-*.parquet, found none")
    for path, fault in repeats(map(read_part, files)):
        raise ValueError(f"{path} {fault}")
    tokenizer, model_config = load_tokenizer(config.model), load_config(config.model)
    own_hash = tokenizer_hash(tokenizer)
    written = unlike = 0
    size = sum(path.stat().st_size for path in files)
    with (
        atomic_path(output) as temporary,
        temporary.open("w", encoding="utf-8") as file,
        tqdm(total=size, unit="B", unit_scale=True, disable=None) as bar,
    ):
        for path in files:
            part = read_part(path)
            for fault in run_misfits(part.metadata, model_config, own_hash):
                raise ValueError(f"{path}: trajectories {fault}")
            for item in part.trajectories:
                record = to_record(item, part.metadata, tokenizer)
                file.write(json_lines([record]))
                written += 1
                unlike += text_ids(tokenizer, record["prompt"], add_special_tokens=False) != item.prompt_ids.tolist()
            bar.update(path.stat().st_size)
    print(f"{written} trajectories written to {output}")
    if unlike:
        print(f"note: {unlike} prompts give other tokens when their text is read; their ids are in tad_ext.prompt_ids")
