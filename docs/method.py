"""Draws docs/method.svg, the picture of the method in the README: `python docs/method.py`.

The example is the demo's arithmetic with two operations: `CA4>` asks for C(A(4)), A(4) = 5, C(5) = 4, so the reference
is `45`, each result in the place of its operation, and the response `4A5;5C4;#4`. Blocks have five positions.
"""

from collections.abc import Iterable
from pathlib import Path

QUESTION, REFERENCE = "CA4>", "45"
TOKENS = "4A5;5C4;#4"
REVEAL_STEP = [1, 3, 2, 4, 5, 7, 6, 8, 9, 10]  # of the teacher, one token per forward
REVEAL_FORWARD = [1, 1, 1, 2, 2, 3, 3, 2, 3, 4]  # of the distilled model
STATES, STATE, DELTA, BLOCK = (0, 3, 6, 10), 3, 3, 5

WIDTH, HEIGHT, LEFT, CANVAS = 900, 634, 28, 318  # LEFT: prompts begin here, CANVAS: cells
CELL, GAP, BLOCK_GAP, ROW = 40, 4, 12, 22  # a cell's width, the gaps between cells and blocks, a row's height
PITCH = ROW + 5

SENTENCES = {
    "Collect": "Shown the reference, the model reveals one token per forward; the order is recorded.",
    "Distil": "Near masks learn the recorded token, distant masks the teacher's whole distribution.",
    "Decode": "Without the reference, the distilled model reveals several tokens per forward.",
}

INK, FAINT, LINE = "#1f2328", "#57606a", "#8c959f"
PAPER, BAND, EDGE = "#ffffff", "#f6f8fa", "#d0d7de"
KNOWN, NEW, MASK, NEAR, DISTANT, TEACHER = "#c6f0d0", "#57c878", "#dfe4ea", "#ffc078", "#8ec5ff", "#e6d9ff"


def text(x: float, y: float, content: str, style: str = "s", anchor: str = "start") -> str:
    content = content.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return f'<text x="{x:g}" y="{y:g}" class="{style}" text-anchor="{anchor}">{content}</text>'


def box(x: float, y: float, width: float, height: float, fill: str, edge: str = EDGE, more: str = 'rx="4"') -> str:
    return f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" fill="{fill}" stroke="{edge}" {more}/>'


def arrow(path: str) -> str:
    return f'<path d="{path}" class="a" marker-end="url(#head)"/>'


def column(index: int) -> float:
    """The left edge of a canvas position."""
    return CANVAS + index * (CELL + GAP) + (index // BLOCK) * BLOCK_GAP


RIGHT = column(len(TOKENS) - 1) + CELL


def row(y: float, label: str, cells: Iterable[tuple[str, str]]) -> str:
    """A canvas: (what stands in the cell, its colour) for each position, no colour where none is created yet."""
    parts = [text(CANVAS - 12, y + 16, label, anchor="end")]
    for index, (content, fill) in enumerate(cells):
        x, dashed = column(index), 'rx="4" stroke-dasharray="3 3"'
        parts.append(box(x, y, CELL, ROW, fill or "none", more='rx="4"' if fill else dashed))
        parts.append(text(x + CELL / 2, y + 16.5, content, "t", "middle"))
    return "".join(parts)


def prompt(y: float, who: str, *, reference: bool) -> str:
    """Chips beside a row at `y`: the question, and the reference, struck out where it is not shown."""
    colour, chip = (TEACHER, 'rx="11"') if reference else ("none", 'rx="11" stroke-dasharray="3 3"')
    parts = [
        text(LEFT, y - 8, who, "b"),
        box(LEFT, y, 68, ROW, PAPER, LINE, 'rx="11"'),
        text(LEFT + 34, y + 16.5, QUESTION, "t", "middle"),
        text(LEFT + 79, y + 16, "+", "s", "middle"),
        box(LEFT + 90, y, 48, ROW, colour, LINE, chip),
        text(LEFT + 114, y + 16.5, REFERENCE, "t" if reference else "t f", "middle"),
    ]
    if not reference:
        parts.append(f'<path d="M{LEFT + 86} {y + ROW - 2}L{LEFT + 142} {y + 2}" class="x"/>')
    return "".join(parts)


def band(y: float, height: float, number: int, name: str) -> str:
    return (
        box(12, y, WIDTH - 24, height, BAND, more='rx="8"')
        + text(LEFT, y + 25, f"{number}  {name}", "h")
        + text(LEFT + 102, y + 25, SENTENCES[name], "p")
    )


def collect(y: float) -> str:
    top = y + 46
    parts = [
        band(y, 184, 1, "Collect"),
        prompt(top + 27, "the teacher's prompt", reference=True),
        text(LEFT, top + 74, f"question {QUESTION}: C(A(4)) = ?"),
        text(LEFT, top + 91, f"reference {REFERENCE}: the results"),
        text(LEFT, top + 108, "of C and of A"),
        text(CANVAS - 12, top + 4 * PITCH + 15, "revealed at step", anchor="end"),
    ]
    for at, state in enumerate(STATES):
        cells = [(t, KNOWN) if step <= state else ("", MASK) for t, step in zip(TOKENS, REVEAL_STEP)]
        parts.append(row(top + at * PITCH, f"after {state} steps", cells))
    for index, step in enumerate(REVEAL_STEP):
        parts.append(text(column(index) + CELL / 2, top + 4 * PITCH + 15, str(step), anchor="middle"))
    return "".join(parts)


def distil(y: float) -> str:
    top, student = y + 62, y + 136
    near = [0 < step - STATE <= DELTA for step in REVEAL_STEP]
    distant = [step - STATE > DELTA for step in REVEAL_STEP]
    known = [(t, KNOWN) if step <= STATE else ("", MASK) for t, step in zip(TOKENS, REVEAL_STEP)]
    lesson = [("CE", NEAR) if n else ("KL", DISTANT) if d else cell for n, d, cell in zip(near, distant, known)]
    parts = [
        band(y, 196, 2, "Distil"),
        prompt(top, "the teacher's prompt", reference=True),
        prompt(student, "the student's prompt", reference=False),
        row(top, "the same state", known),
        row(student, f"state {STATE}, δ = {DELTA}", lesson),
    ]
    for index, token in enumerate(TOKENS):
        middle = column(index) + CELL / 2
        if near[index]:
            parts.append(text(middle, student + ROW + 17, f"= {token}", "t", "middle"))
        if distant[index]:  # a distribution, as bars
            heights = [(3, 12, 6, 4), (13, 4, 3, 5), (4, 5, 12, 3), (5, 9, 8, 3)][index % 4]
            parts += [box(middle - 12 + 6 * i, top + 18 - h, 5, h, DISTANT, "none", "") for i, h in enumerate(heights)]
    first, last = column(distant.index(True)), RIGHT
    middle = (first + last) / 2
    parts += [
        f'<path d="M{first:g} {top + ROW + 5}v6H{last:g}v-6" class="l"/>',
        arrow(f"M{middle:g} {top + ROW + 11}V{student - 8}"),
        text(middle - 10, top + ROW + 35, "same weights,", "b", "end"),
        text(middle + 10, top + ROW + 35, "adapter off", "b"),
    ]
    return "".join(parts)


def decode(y: float) -> str:
    top = y + 62
    last, half = max(REVEAL_FORWARD), BLOCK * (CELL + GAP) - GAP
    parts = [
        band(y, 184, 3, "Decode"),
        prompt(top + 27, "the student's prompt", reference=False),
        text(LEFT, top + 74, f"{len(TOKENS)} tokens in {last} forwards;"),
        text(LEFT, top + 91, f"one per forward takes {len(TOKENS)}"),
    ]
    for block in range(len(TOKENS) // BLOCK):
        parts.append(text(column(block * BLOCK) + half / 2, top - 8, f"block {block + 1}", "s", "middle"))
    for forward in range(1, last + 1):
        cells = [
            (t, NEW if at == forward else KNOWN) if at <= forward else ("", MASK if forward > 1 or i < BLOCK else "")
            for i, (t, at) in enumerate(zip(TOKENS, REVEAL_FORWARD))
        ]
        parts.append(row(top + (forward - 1) * PITCH, f"after forward {forward}", cells))
    return "".join(parts)


def connectors(collected: float, distilled: float, decoded: float) -> str:
    """What goes from one stage to the next, right of the canvases: from where, to where."""
    x, turn = RIGHT + 8, RIGHT + 26
    return "".join(
        [
            f'<path d="M{x} {collected - 13}h4v26h-4" class="l"/>',
            arrow(f"M{x + 4} {collected}H{turn}V{distilled}H{x}"),
            text(turn + 7, collected + 50, "each state"),
            text(turn + 7, collected + 66, "is a sample"),
            arrow(f"M{x} {distilled + 11}H{turn}V{decoded}H{x}"),
            text(turn + 7, distilled + 86, "adapter"),
            text(turn + 7, distilled + 102, "merged"),
        ]
    )


def legend(y: float) -> str:
    entries = [
        (MASK, "masked", 90), (KNOWN, "revealed", 98), (NEW, "revealed by this forward", 196),
        (NEAR, f"near: within δ = {DELTA} steps, CE", 224), (DISTANT, "distant: later, KL", 0),
    ]  # fmt: skip
    parts, x = [], LEFT
    for fill, name, width in entries:
        parts += [box(x, y, 18, 14, fill, more='rx="3"'), text(x + 24, y + 12, name)]
        x += width
    return "".join(parts)


def picture() -> str:
    body = [collect(12), distil(206), decode(412), connectors(98, 353, 485), legend(607)]
    paper = box(0.5, 0.5, WIDTH - 1, HEIGHT - 1, PAPER, more='rx="10"')
    style = (
        f"text{{font-family:ui-sans-serif,system-ui,'Segoe UI',Helvetica,Arial,sans-serif;fill:{INK}}}"
        ".h{font-size:17px;font-weight:700}.p{font-size:14px}.b{font-size:13px;font-weight:600}"
        f".s{{font-size:13px;fill:{FAINT}}}.t{{font:15px ui-monospace,Menlo,Consolas,monospace}}.f{{fill:{LINE}}}"
        f".a,.l{{fill:none;stroke:{FAINT};stroke-width:1.6}}.x{{stroke:#cf222e;stroke-width:2}}"
    )
    head = (
        '<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0 0L8 4L0 8z" fill="{FAINT}"/></marker>'
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="Collect, distil, decode"><style>{style}</style><defs>{head}</defs>'
        f"{paper}{''.join(body)}</svg>\n"
    )


if __name__ == "__main__":
    Path(__file__).with_name("method.svg").write_text(picture(), encoding="utf-8")
