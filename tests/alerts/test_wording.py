"""What a message says."""

import pytest

from forwarder.alerts.planner import Group, Message
from forwarder.alerts.wording import MAX_COMMAND_CHARS, MAX_DIGEST_LINES, MAX_TITLE_CHARS, link, note


def single(*events, again: bool = False) -> Message:
    return Message((Group("k", events, again),))


def test_what_when_who_on_what_command_outcome_and_severity(event) -> None:
    """All that one needs to know whether to get up."""
    said = note(
        single(
            event(1, command="sh -c 'id'", source_ips=("10.0.0.7",), acting_as="root", via="rancher", container="app",
                  stage="ResponseStarted", response_code=101, cluster="prod-eu")
        ),
        dashboard_url="https://d.example/e/{id}",
    )  # fmt: skip
    assert said.title == "kubectl-exec: jane on shop/cart"
    assert dict(said.facts) == {
        "What": "kubectl exec on pods/cart-1 (ns:shop) by jane",
        "When": "2025-06-18 12:00:00 UTC",
        "Who": "jane acting as root by way of rancher from 10.0.0.7",
        "On what": "create pods/exec shop/cart-1, container app",
        "Outcome": "open now",
        "Severity": "high (10 points)",
        "Cluster": "prod-eu",
    }
    assert said.command == "sh -c 'id'"
    assert said.footer == "id 00000000-0000-0000-0000-000000000001 · audit id audit-1"
    assert said.link == "https://d.example/e/00000000-0000-0000-0000-000000000001"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"stage": "ResponseComplete", "response_code": 200}, "allowed (200)"),
        ({"stage": "ResponseComplete", "response_code": 101, "duration_s": 61.2}, "allowed (101), lasted 61 s"),
        ({"outcome": "denied", "response_code": 403}, "denied (403)"),
        ({"outcome": "failed", "stage": "Panic"}, "failed"),
        ({"stage": "RequestReceived"}, "not yet known"),
    ],
)
def test_how_it_ended(event, fields, expected) -> None:
    """Or that it has not yet."""
    assert dict(note(single(event(1, **fields))).facts)["Outcome"] == expected


def test_repeats_say_how_many_and_from_when_to_when(event, clock) -> None:
    """The number, and whether one message came before."""
    events = (event(1), event(2, at=clock.now + 95))
    assert note(single(*events)).title.endswith("on shop/cart — 2 times")
    assert note(single(*events, again=True)).title.endswith("— 2 more times")
    assert note(single(event(1), again=True)).title.endswith("— again")
    assert dict(note(single(*events)).facts)["When"] == "2025-06-18 12:00:00 UTC to 12:01:35 UTC"


def test_a_denied_attempt_and_a_test_say_so_first(event) -> None:
    """Nobody should have to open it for that."""
    assert note(single(event(outcome="denied"))).title.startswith("denied: kubectl-exec")
    assert note(single(event(test=True))).title.startswith("[test] kubectl-exec")


def test_a_digest_gives_numbers_and_the_gravest_first(event) -> None:
    """What was held back is told: how many, what, by whom."""
    groups = [Group(str(n), (event(n, actor=f"u{n}", severity="low"),) * (n + 1)) for n in range(20)]
    groups.append(Group("x", (event(99, actor="eve", cluster="b"),)))
    said = note(Message(tuple(groups), "rate"), max_per_minute=10, dashboard_url="https://d/{entity_ref}")
    assert said.title == "211 events held back: more than 10 messages a minute"
    assert said.severity == "high"
    assert said.lines[0] == "🔴 1 x kubectl-exec: eve on shop/cart (b)"
    assert said.lines[1] == "🔵 20 x kubectl-exec: u19 on shop/cart"
    assert len(said.lines) == MAX_DIGEST_LINES + 1
    assert said.lines[-1] == "and 45 more events in 9 groups"
    assert dict(said.facts)["Who"].endswith(" and 16 more")
    assert said.link == "https://d/"
    quiet = note(Message((Group("x", (event(1),)), Group("y", (event(2),))), "quiet"))
    assert quiet.title == "2 events held back during the quiet hours"


def test_everything_is_bounded(event) -> None:
    """A message of a hostile length is still one."""
    said = note(single(event(actor="x" * 5000, command="y" * 5000, description="z" * 5000)))
    assert len(said.title) == MAX_TITLE_CHARS
    assert len(said.command) == MAX_COMMAND_CHARS
    assert all(len(value) <= 300 for _, value in said.facts)


def test_values_in_a_link_are_quoted(event) -> None:
    """A name cannot add to the address."""
    assert link("https://d/?s={entity_ref}&c={cluster}", event(entity_ref="component:a/b&c", cluster="x y")) == (
        "https://d/?s=component%3Aa%2Fb%26c&c=x%20y"
    )
    assert link("", event()) == ""
