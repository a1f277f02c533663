"""SVG elements as text, escaped; and how counts become shades.

    element("rect", x=1, y=2, class_="level-3")  ->  <rect x="1" y="2" class="level-3"/>

There is no way to write an unescaped value: text that is no Markup is escaped, whoever made it up.
"""

import functools
import math
from collections.abc import Iterable
from itertools import chain

from markupsafe import Markup, escape

Value = str | int | float
Attributes = dict[str, Value]
LEVELS = 4  # shades above zero: more cannot be told apart at the size of a cell
LEAST_DARKEST = 4  # events; where the most is less, even that is not the darkest


def element(tag: str, *children: Markup | str, **attributes: Value) -> Markup:
    """One element. An underscore at an attribute's end is dropped, one inside it is a hyphen."""
    parts = [f"<{tag}"]
    for name, value in attributes.items():
        text = escape(value) if isinstance(value, str) else number(value)
        parts.append(f' {_attribute(name)}="{text}"')
    if not children:
        return Markup("".join(parts) + "/>")  # noqa: S704 - every value in it has been escaped above
    inside = "".join(escape(child) for child in children)
    return Markup(f"{''.join(parts)}>{inside}</{tag}>")  # noqa: S704 - the same


def picture(width: float, height: float, children: Iterable[Markup], **attributes: Value) -> Markup:
    """An `svg` of its own size, which the style sheet may stretch."""
    box = f"0 0 {number(width)} {number(height)}"
    return element("svg", *chain(children), viewBox=box, width=width, height=height, **attributes)


@functools.cache
def _attribute(name: str) -> str:
    return name.rstrip("_").replace("_", "-")


def number(value: float) -> str:
    """At most two decimals: more is longer, not sharper."""
    if isinstance(value, int):
        return str(value)
    return f"{value:.2f}".rstrip("0").rstrip(".")


def level(count: int, most: int) -> int:
    """The shade of a count: 0 for none, else 1 to LEVELS. Few events among many stay visible: shades grow as the root."""
    if count <= 0:
        return 0
    most = max(most, LEAST_DARKEST)
    return max(1, min(LEVELS, round(math.sqrt(count / most) * LEVELS)))
