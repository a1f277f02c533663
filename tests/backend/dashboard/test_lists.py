"""What stands below a list."""

from starlette.requests import Request

from forwarder.backend.dashboard.lists import MAX_OFFSET, event_pages, name_pages, page_offset
from forwarder.backend.store.events import EventPage


def test_the_only_page() -> None:
    """Nothing to turn."""
    page = event_pages("/search", {"q": "x"}, EventPage(events=[], next=""), "")
    assert (page["words"], page["first"], page["next"]) == ("0 events", "", "")


def test_a_page_between() -> None:
    """Back to the first one and on, with the filter; an empty page says how far it looked."""
    page = event_pages(
        "/search", {"q": "x"}, EventPage(events=[], next="1.2", searched_us=1_769_860_805_000_000), "9.9"
    )
    assert page["first"] == "/search?q=x"
    assert page["next"] == "/search?q=x&cursor=1.2"
    assert page["next_words"] == "Look further back"
    assert "looked back to 2026-01-31 12:00" in page["words"]


def test_names() -> None:
    """One more name than fits means that there is another page."""
    assert name_pages("/actors", {}, 0, [1], 2, "actor")["words"] == "1 actor"
    page = name_pages("/actors", {"q": "a"}, 2, [1, 2, 3], 2, "actor")
    assert (page["words"], page["next"], page["first"]) == ("3 to 4", "/actors?q=a&offset=4", "/actors?q=a")


def test_offset() -> None:
    """Only numbers count, and not beyond all bounds."""

    def of(query: str) -> int:
        return page_offset(Request({"type": "http", "query_string": query.encode()}))

    assert [of(""), of("offset=50"), of("offset=-1"), of("offset=x"), of("offset=999999999")] == [
        0,
        50,
        0,
        0,
        MAX_OFFSET,
    ]
