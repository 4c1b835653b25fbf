"""In which order positions are revealed, as shades of text and as a picture."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from tad_ext.files import atomic_path

_SHADES = " ░▒▓█"


def shaded(order: np.ndarray) -> Iterator[str]:
    """The lines of a text for what `reveal_order` gives: the darkest where most of a bin's positions are revealed."""
    rows, columns = order.shape
    level = np.ceil(order / order.max() * (len(_SHADES) - 1)).astype(int)
    for row in range(rows):
        yield f"{100 * row // rows:>3}-{100 * (row + 1) // rows:>3} %  |{''.join(_SHADES[one] for one in level[row])}|"
    yield " " * 11 + "first position".ljust(columns - 4) + "last"


def plot_reveal_orders(orders: Mapping[str, np.ndarray], path: Path) -> None:
    """A map for each name, one below the other, as a PNG at `path`."""
    figure = Figure(figsize=(9, 0.6 + 2.4 * len(orders)), layout="constrained")
    for axes, (name, order) in zip(figure.subplots(len(orders), squeeze=False)[:, 0], orders.items(), strict=True):
        image = axes.imshow(order, aspect="auto", cmap="viridis", vmin=0, extent=(0, 1, 100, 0))
        axes.set_xticks([0, 1], ["first", "last"])
        axes.set(xlabel="position of the canvas", ylabel="forwards, %")
        axes.set_title(name, fontsize=9, parse_math=False)
        figure.colorbar(image, label="revealed share")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
