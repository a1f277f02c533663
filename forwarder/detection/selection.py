"""Selection: which audit events an audit stream takes, in the words of the rule language.

    select:
      - {resource: pods, subresources: [exec, attach]}
      - {resource: secrets, verbs: [get, list], outcome: denied}

Each item is the `match` of a rule, all of its conditions hold; one item that fits is enough. Other than in a rule, an
item without `outcome` takes every outcome, and no namespace is ignored unless the item says so.
"""

from collections.abc import Callable, Collection, Sequence

from forwarder.detection.actors import machine_test, resolve
from forwarder.detection.detector import outcome
from forwarder.detection.matcher import Request, compile_rule, static_of
from forwarder.detection.rules import Rule
from forwarder.detection.workload import workload
from forwarder.events.audit import AuditEvent


def selection(
    rules: Sequence[Rule], stages: Collection[str], *, ignore_system: bool, robots: Sequence[str]
) -> Callable[[AuditEvent], bool]:
    """Whether an event is selected. rules: as `loader.load_selection` gives them; none takes every event, as no stage does."""
    is_machine = machine_test(robots)
    compiled = [compile_rule(rule, ()) for rule in rules]
    wanted_stages = frozenset(stages)

    def selected(event: AuditEvent) -> bool:
        if wanted_stages and event.stage not in wanted_stages:
            return False
        if not compiled and not ignore_system:
            return True
        actor = resolve(event, is_machine)
        if ignore_system and actor.machine:
            return False
        if not compiled:
            return True
        static = static_of(event, actor)
        request = Request(event, actor, outcome(event), workload(event, "").name)
        return any(one.static_reason(static) is None and one.dynamic_reason(request) is None for one in compiled)

    return selected
