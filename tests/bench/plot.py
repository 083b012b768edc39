# SPDX-License-Identifier: MIT
"""The plot: what each contestant adds to a stall, as SVG. Pure."""

import html
import math

from figures import KINDS, number

WIDTH, LEFT, RIGHT, TOP = 760, 190, 70, 52
BAR, ROW = 12, 36
TEXT, GRID = "#7a828e", "#7a828e"  # seen on white and on dark
COLOURS = {"read": "#2f81c4", "empty": "#d98324"}

STYLE = f"""<style>
text {{ font: 13px sans-serif; fill: {TEXT} }}
.value, .axis {{ font-size: 11px }}
line {{ stroke: {GRID}; stroke-opacity: 0.4 }}
</style>"""


class Axis:
    """A logarithmic axis over whole decades."""

    def __init__(self, values):
        self.first = math.floor(math.log10(min(values)))
        self.last = math.ceil(math.log10(max(values)))

    def place(self, value):
        """Where a value is."""
        share = (math.log10(value) - self.first) / (self.last - self.first)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def draw(self, bottom):
        """Its lines and their values."""
        for power in range(self.first, self.last + 1):
            x = self.place(10 ** power)
            yield f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 6}" y2="{bottom}"/>'
            yield _text(x, bottom + 16, f"{10 ** power:,} ns", "axis", "middle")


def _text(x, y, text, style="", anchor="start"):
    return (f'<text x="{x:.1f}" y="{y:.1f}" class="{style}" text-anchor="{anchor}">'
            f"{html.escape(text)}</text>")


def _legend(kinds):
    x = LEFT
    yield _text(0, 16, "Added to each stall (log scale)")
    for kind in kinds:
        yield f'<rect x="{x}" y="26" width="{BAR}" height="{BAR}" fill="{COLOURS[kind]}"/>'
        yield _text(x + BAR + 6, 36.5, KINDS[kind])
        x += 130


def _row(axis, top, name, values):
    yield _text(LEFT - 8, top + BAR + 4, name, "", "end")
    for kind, value in values.items():
        end = axis.place(value)
        yield (f'<rect x="{LEFT}" y="{top}" width="{end - LEFT:.1f}" height="{BAR}" '
               f'fill="{COLOURS[kind]}"/>')
        yield _text(end + 5, top + BAR - 2, number(value), "value")
        top += BAR + 1


def plot(rows):
    """SVG of {name: {kind: ns}}; what is not above 1 ns is drawn as that."""
    rows = {name: {kind: max(ns, 1) for kind, ns in values.items()}
            for name, values in rows.items()}
    axis = Axis([ns for values in rows.values() for ns in values.values()])
    bottom = TOP + ROW * len(rows)
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom + 24}" '
             f'width="{WIDTH}" height="{bottom + 24}">', STYLE, *axis.draw(bottom)]
    lines += _legend(next(iter(rows.values())))
    for place, (name, values) in enumerate(rows.items()):
        lines += _row(axis, TOP + ROW * place + 4, name, values)
    return "\n".join([*lines, "</svg>", ""])
