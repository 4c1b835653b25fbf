"""Draws docs/method.svg, the picture of the method in the README: `python docs/method.py`."""

from __future__ import annotations

from pathlib import Path

CELL, GAP, LEFT = 46, 4, 190
INK, FAINT, MASK, NEAR, FAR, DONE = "#1f2328", "#656d76", "#eaeef2", "#ffd8a8", "#a5d8ff", "#b2f2bb"
TOKENS = ["4", "A", "5", ";", "5", "C", "4", ";", "#", "4"]
REVEAL_STEP = [1, 3, 2, 4, 5, 7, 6, 8, 9, 10]


def cell(x: float, y: float, text: str, fill: str, sub: str = "") -> str:
    parts = [
        f'<rect x="{x}" y="{y}" width="{CELL}" height="34" rx="5" fill="{fill}" stroke="#d0d7de"/>',
        f'<text x="{x + CELL / 2}" y="{y + 22}" text-anchor="middle" class="t">{text}</text>',
    ]
    if sub:
        parts.append(f'<text x="{x + CELL / 2}" y="{y + 48}" text-anchor="middle" class="s">{sub}</text>')
    return "".join(parts)


def label(y: float, head: str, text: str) -> str:
    return f'<text x="10" y="{y + 16}" class="h">{head}</text><text x="10" y="{y + 33}" class="s">{text}</text>'


def row(y: float, cells: list[tuple[str, str, str]]) -> str:
    return "".join(cell(LEFT + i * (CELL + GAP), y, *one) for i, one in enumerate(cells))


def picture() -> str:
    state, delta = 3, 3
    trajectory = [(token, DONE, f"step {step}") for token, step in zip(TOKENS, REVEAL_STEP)]
    training = []
    for token, step in zip(TOKENS, REVEAL_STEP):
        left = step - state
        fill = DONE if left <= 0 else NEAR if left <= delta else FAR
        training.append((token if left <= 0 else "▒", fill, "" if left <= 0 else "CE" if left <= delta else "KL"))
    before = [(t, DONE if i < 1 else MASK, "") for i, t in enumerate(["4", *["▒"] * 9])]
    after = [(t if i < 6 else "▒", DONE if i < 6 else MASK, "") for i, t in enumerate(TOKENS)]
    body = [
        label(14, "1  Collect", "question + reference answer"),
        row(14, trajectory),
        label(96, "2  Distil", f"state 3 of 10, δ = {delta}"),
        row(96, training),
        label(178, "3  Decode, base", "after one forward"),
        row(178, before),
        label(236, "    … distilled", "after one forward"),
        row(236, after),
        '<text x="10" y="300" class="s">1 The privileged teacher decodes one token per forward; the step of each '
        "reveal is recorded.</text>",
        '<text x="10" y="318" class="s">2 At a recorded state, masks revealed within δ steps learn the tokens (CE), '
        "later ones the teacher (KL).</text>",
    ]
    style = (
        f"text{{font-family:ui-sans-serif,system-ui,sans-serif;fill:{INK}}}.t{{font-size:17px}}"
        f".h{{font-size:15px;font-weight:600}}.s{{font-size:12px;fill:{FAINT}}}"
    )
    width, height = LEFT + 10 * (CELL + GAP) + 10, 332
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="Collect, distil, decode"><style>{style}</style>'
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>{"".join(body)}</svg>\n'
    )


if __name__ == "__main__":
    Path(__file__).with_name("method.svg").write_text(picture(), encoding="utf-8")
