"""Small pieces that stand on every line of a list: links, tags, moments. In Python, not as macros of the templates: a
page has hundreds of them, and there a call costs more than what it says.

Every text is escaped here, whoever made it up.
"""

from collections.abc import Mapping

from markupsafe import Markup, escape

from forwarder.backend.dashboard.words import address, ago, iso, split_ref


def service_link(ref: str) -> Markup:
    """A service by its namespace and name."""
    _, namespace, name = split_ref(ref)
    link = escape(address("/service", ref=ref))
    return Markup(f'<a href="{link}" title="{escape(ref)}">{escape(namespace)}/{escape(name)}</a>')  # noqa: S704


def actor_link(name: str) -> Markup:
    """An actor by name; one without a name has no page."""
    if not name:
        return Markup('<span class="quiet">unknown</span>')
    return Markup(f'<a href="{escape(address("/actor", name=name))}">{escape(name)}</a>')  # noqa: S704


def rule_tag(name: str, severity: str = "", count: int | None = None) -> Markup:
    """A rule as a tag in the colour of its severity."""
    link, number = (
        escape(address("/rule", name=name)),
        "" if count is None else f' <span class="count">{count:,}</span>',
    )
    return Markup(f'<a class="tag {escape(severity)}" href="{link}">{escape(name)}{number}</a>')  # noqa: S704


def time_ago(time_us: int, now_us: int) -> Markup:
    """`4 min ago` as a <time>. Both: Unix microseconds."""
    return Markup(f'<time datetime="{iso(time_us)}">{ago(time_us, now_us)}</time>')  # noqa: S704


def count_link(count: int, where: Mapping[str, object], label: str = "") -> Markup:
    """A figure with the events behind it. label: what it counts, for those who hear it."""
    if not count:
        return Markup("0")
    said = f'<span class="hidden-text"> {escape(label)}</span>' if label else ""
    return Markup(f'<a href="{escape(address("/search", where))}">{count:,}{said}</a>')  # noqa: S704
