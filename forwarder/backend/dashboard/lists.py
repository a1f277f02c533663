"""Lists, page by page: the links below them, and how far back a page of events has looked."""

from collections.abc import Mapping, Sequence

from starlette.requests import Request

from forwarder.backend.dashboard.words import address, moment, plural
from forwarder.backend.store.events import EventPage

MAX_OFFSET = 100_000  # beyond it a filter finds more than turning pages does


def event_pages(path: str, given: Mapping[str, str], page: EventPage, cursor: str) -> dict[str, str]:
    """What stands below a list. given: the filter, which the links keep."""
    words = plural(len(page.events), "event") + (" on this page" if page.next or cursor else "")
    if page.next and page.searched_us is not None:
        words += f", looked back to {moment(page.searched_us)[:16]}"
    return {
        "words": words,
        "first": address(path, given) if cursor else "",
        "next": address(path, given, cursor=page.next) if page.next else "",
        "next_words": "Older" if page.events else "Look further back",
        "further": "" if page.events else "yes",  # for the script that goes on by itself
    }


def name_pages(
    path: str, given: Mapping[str, str], offset: int, found: Sequence[object], size: int, word: str
) -> dict[str, str]:
    """The same below a list of names; found: one more than the page shows, where there is one."""
    shown = min(len(found), size)
    more = len(found) > size
    words = f"{offset + 1:,} to {offset + shown:,}" if offset or more else plural(shown, word)
    return {
        "words": words,
        "first": address(path, given) if offset else "",
        "next": address(path, given, offset=offset + size) if more else "",
        "next_words": "Next",
    }


def page_offset(request: Request, name: str = "offset") -> int:
    """A number in the address; 0 for what is none."""
    text = request.query_params.get(name, "")
    return min(int(text), MAX_OFFSET) if text.isascii() and text.isdigit() and len(text) < 10 else 0
