"""Bars, as SVG that reads on light and dark pages."""

from collections.abc import Sequence
from html import escape

WIDTH, LEFT, ROW, TOP = 760, 270, 26, 44


def draw(rows: Sequence[tuple[str, float]], footer: str) -> str:
    """One bar for each (name, microseconds of CPU per event); the picture as text."""
    longest = max(us for _, us in rows)
    height = TOP + ROW * len(rows) + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" font-family="sans-serif" font-size="13">',
        "<style>text{fill:#333}.bar{fill:#3b7ddd}.edge{fill:#9aa7b5}@media (prefers-color-scheme:dark){text{fill:#ddd}}</style>",
        '<text x="8" y="24" font-size="16">Microseconds of CPU per audit event (shorter is better)</text>',
    ]
    for number, (name, us) in enumerate(rows):
        y = TOP + number * ROW
        length = max(2, round((WIDTH - LEFT - 60) * us / longest))
        kind = "edge" if number in (0, len(rows) - 1) else "bar"
        parts.append(f'<text x="{LEFT - 8}" y="{y + 14}" text-anchor="end">{escape(name)}</text>')
        parts.append(f'<rect class="{kind}" x="{LEFT}" y="{y}" width="{length}" height="{ROW - 8}" rx="3"/>')
        parts.append(f'<text x="{LEFT + length + 6}" y="{y + 14}">{us:.2f}</text>')
    parts.append(f'<text x="8" y="{height - 8}" font-size="11">{escape(footer)}</text>')
    return "\n".join([*parts, "</svg>", ""])
