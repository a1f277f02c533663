"""What people do to a cluster, and the friction events that each action must give: read from kind/scenario.yaml.

    actions:
      - name: a shell over a websocket
        as: alice                                # a name from `people`
        kubectl: [exec, -n, shop, $pod, --, "true"]     # $pod, $node, $image, $folder (a scratch folder)
        events: [{type: kubectl-exec, verb: get, resource: pods, subresource: exec, service: shop/checkout, command: "true"}]

The same list is run against a kind cluster and against a control plane without containers. The comparison is exact: an
event that nobody expected fails it as much as one that is missing.
"""

import string
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from forwarder.settings import read_document

FILE = Path(__file__).parents[2] / "kind" / "scenario.yaml"


class Person(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whom the cluster takes somebody for."""

    user: str
    groups: tuple[str, ...] = ()


class Expected(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One friction event. service: namespace/workload. What is not named must be empty, `actor` and `name` excepted:
    the actor is who acted unless it is named, and a name is compared only where one stands (pods have random ones).
    """

    type: str
    verb: str
    resource: str
    service: str
    subresource: str = ""
    name: str = ""
    actor: str = ""
    acting_as: str = ""
    via: str = ""
    outcome: str = "allowed"
    command: str = ""
    tty: bool = False


class Http(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A request through `kubectl proxy`: for headers that kubectl itself does not send. status: the expected answer."""

    path: str
    headers: dict[str, str] = {}
    status: int = 200


class Action(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"actor": "as"}):
    """One thing that somebody does: kubectl with these arguments, or requests through its proxy.

    stays_open: a session; it is ended when its events, still open, stand in the backend.
    fails: kubectl ends with an error. tty: its input is a terminal.
    routable: kube-apiserver proxies to no loopback address, so it needs nodes that have another.
    """

    name: str
    actor: str
    kubectl: tuple[str, ...] = ()
    http: tuple[Http, ...] = ()
    stdin: str = ""
    env: dict[str, str] = {}
    events: tuple[Expected, ...] = ()
    stays_open: bool = False
    fails: bool = False
    tty: bool = False
    routable: bool = False


class Scenario(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """people: name -> identity. objects: what stands there before, made by `setup`, a machine. secrets: texts that must be
    in no event and in no log of ours.
    """

    people: dict[str, Person]
    setup: str
    objects: tuple[dict[str, Any], ...]
    secrets: tuple[str, ...]
    actions: tuple[Action, ...]


def load(path: Path = FILE, *, routable: bool = True) -> Scenario:
    """routable: whether the nodes have other addresses than loopback ones; without, some actions are left out."""
    scenario = msgspec.convert(read_document(path).data, Scenario)
    actions = tuple(action for action in scenario.actions if routable or not action.routable)
    return msgspec.structs.replace(scenario, actions=actions)


# --- comparing -------------------------------------------------------------------------------------------------------

Row = tuple[Any, ...]  # what is compared of an event
Event = Mapping[str, Any]  # as the backend's API lists it; empty fields may be left out

COMPARED = tuple("type actor acting_as via entity_ref verb resource subresource outcome command tty".split())


def expected_rows(scenario: Scenario, action: Action, words: Mapping[str, str]) -> list[Row]:
    """What the action must give; `words` stand for $node and the like."""
    rows = []
    for event in action.events:
        fields = {
            name: string.Template(value).substitute(words) if isinstance(value, str) else value
            for name, value in msgspec.structs.asdict(event).items()
        }
        fields["actor"] = fields["actor"] or scenario.people[action.actor].user
        fields["entity_ref"] = f"component:{fields['service']}"
        rows.append(_row(fields, named=bool(event.name)))
    return rows


def rows_of(events: Sequence[Event], wanted: Counter[Row]) -> Counter[Row]:
    """The events as rows; with their names where a wanted row has one."""
    return Counter(full if (full := _row(event, named=True)) in wanted else _row(event) for event in events)


def difference(expected: Sequence[Row], events: Sequence[Event]) -> str:
    """Empty when exactly the expected events are there; else what is missing and what nobody expected, a line each."""
    wanted = Counter(expected)
    found = rows_of(events, wanted)
    missing = [f"- missing    {row}" for row in (wanted - found).elements()]
    extra = [f"+ unexpected {row}" for row in (found - wanted).elements()]
    return "\n".join([*missing, *extra])


def _row(event: Event, *, named: bool = False) -> Row:
    row = tuple(event.get(name) or "" for name in COMPARED)
    return (*row, event.get("name") or "") if named else row
