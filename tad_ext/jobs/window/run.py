"""`tad window`: a model's confidence in its trajectories against steps until reveal, and the deltas it speaks for."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tad_ext.data.trajectories.files import Trajectory, read_trajectories
from tad_ext.data.trajectories.fits import check_fits
from tad_ext.evaluation.confidence import confidence_by_distance
from tad_ext.evaluation.decay import ConfidenceDecay
from tad_ext.evaluation.plots import plot_confidence_decay
from tad_ext.files import output_folder, successor, tried_folder, write_json
from tad_ext.jobs.window.config import WindowConfig
from tad_ext.models.hub import hub_note
from tad_ext.models.identity import model_fingerprint
from tad_ext.models.loading import load_config, load_tokenizer
from tad_ext.settings import values_of

REPORT, CURVE = "window.json", "confidence_decay.png"


def window(config: WindowConfig) -> dict[str, Any]:
    """Writes window.json (`ConfidenceDecay` with all settings) and confidence_decay.png; returns what the former holds.

    Raises ValueError, before the model is loaded, for trajectories that cannot be read, are none, or do not fit the
    model, and for an output that cannot be written to; what `load_merged` and `confidence_by_distance` raise.
    """
    trajectories = _trajectories(config)
    tried_folder(config.output)
    model = config.load()
    decay = confidence_by_distance(model, trajectories, config.decay, progress=True)
    name = Path(config.adapter or config.model).resolve().name
    _print(name, decay)  # first: a terminal is never full
    report = decay.to_json() | {
        "model_fingerprint": model_fingerprint(config.model),
        **hub_note(config.model),
        "settings": values_of(config),
    }
    output = output_folder(config.output)
    with successor(output, [path for path in (output / REPORT, output / CURVE) if path.exists()]) as folder:
        write_json(folder / REPORT, report)
        plot_confidence_decay({name: decay}, folder / CURVE)
    print(f"written to {output}")
    return report


def recommendation(decay: ConfidenceDecay) -> str:
    """The deltas in one line, as in "delta for quality: 8 (95 % interval 7 to 9); for speed: 20 (18 to 23)"."""

    def shown(distance: int | None) -> str:
        return f"more than {decay.distances[-1]}" if distance is None else str(distance)

    quality, speed = decay.deltas.values()
    first, second = (" to ".join(map(shown, delta.interval)) for delta in (quality, speed))
    return (
        f"delta for quality: {shown(quality.distance)} (95 % interval {first}); "
        f"for speed: {shown(speed.distance)} ({second})"
    )


def _trajectories(config: WindowConfig) -> list[Trajectory]:
    """Those to use of all folders, which fit the model."""
    runs, found = read_trajectories(*config.trajectories)
    kept, shown = config.kept(found), ", ".join(config.trajectories)
    model, tokenizer = load_config(config.model), load_tokenizer(config.model)
    check_fits(shown, runs[0], kept, model, tokenizer, prompts=["prompt_ids"])  # the teacher is not asked
    return kept


def _print(name: str, decay: ConfidenceDecay) -> None:
    table = Table(title=f"{name}, {decay.problems} problems")
    for heading in ("steps until reveal", "confidence", "95 % interval", "positions"):
        table.add_column(heading, justify="right")
    rows = zip(decay.distances, decay.confidence, decay.intervals, decay.counts, strict=True)
    for distance, confidence, (low, high), count in rows:
        table.add_row(str(distance), f"{confidence:.3f}", f"{low:.3f} to {high:.3f}", f"{count:,}")
    console = Console(markup=False)  # a path may hold brackets
    console.print(table)
    console.print(recommendation(decay), highlight=False, soft_wrap=True)
