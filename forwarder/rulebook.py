"""The rules in force, and how others take their place while the receiver runs.

A set that does not load leaves the running one where it is, and says so. Sources were given the detector's screen when
they were built; they keep it, and it answers by the new rules. Processes of a source have a screen of their own and are
told (`workers`).
"""

import asyncio
import logging
from collections.abc import Sequence

from forwarder.contracts import HasWorkers
from forwarder.detection.detector import Detector
from forwarder.detection.loader import load_rules
from forwarder.detection.rules import RuleSet
from forwarder.errors import ConfigError
from forwarder.registry import Loaded, takes_audit_events
from forwarder.telemetry import Telemetry

log = logging.getLogger(__name__)


class Rulebook:
    """detector: made of the rules in force. workers: sources whose processes have to be told of new ones."""

    def __init__(self, loaded: Loaded, telemetry: Telemetry) -> None:
        """Raises ConfigError for rules that do not load."""
        self.workers: Sequence[HasWorkers] = ()
        self._loaded = loaded
        self._telemetry = telemetry
        self.detector = self._detector(self._rules())
        self._seen = self.files_state()
        telemetry["forwarder_rules_loaded"].set(len(self.detector.ruleset.rules))

    def reload(self) -> bool:
        """Load the rules again. Whether the new ones are in force."""
        self._seen = self.files_state()
        try:
            detector = self._detector(self._rules())
        except ConfigError as error:
            self._telemetry["forwarder_rules_reloads"].labels("refused").inc()
            log.error(
                "the changed rules are not used, the old %d stay in force: %s", len(self.detector.ruleset.rules), error
            )
            return False
        screen = self.detector.screen
        screen.adopt(detector.screen)
        detector.screen = screen
        self.detector = detector
        self.tell_workers()
        for warning in detector.ruleset.warnings:
            log.warning("%s", warning)
        self._telemetry["forwarder_rules_reloads"].labels("loaded").inc()
        self._telemetry["forwarder_rules_loaded"].set(len(detector.ruleset.rules))
        log.info("rules loaded again: %d in force", len(detector.ruleset.rules))
        return True

    def tell_workers(self) -> None:
        """What they screen by from now on."""
        settings = self._loaded.config.detection
        for source in self.workers:
            source.set_rules(self.detector.ruleset, settings.own_namespace, settings.robots)

    async def watch(self) -> None:
        """Load the rules again whenever a file of theirs changes; for ever."""
        interval_s = self._loaded.config.detection.reload_interval_s
        while interval_s > 0:
            await asyncio.sleep(interval_s)
            try:
                if self.files_state() != self._seen:
                    self.reload()
            except OSError as error:
                log.warning("cannot look at the rules: %s", error.strerror)

    def files_state(self) -> tuple[object, ...]:
        """What changes when a rules file does: a ConfigMap swaps a link, an editor writes or renames."""
        state: list[object] = []
        for path in self._loaded.rules:
            for file in sorted(path.iterdir()) if path.is_dir() else [path]:
                try:
                    about = file.stat()
                    state.append((str(file), about.st_ino, about.st_mtime_ns, about.st_size))
                except OSError:
                    state.append((str(file), None))
        return tuple(state)

    def _rules(self) -> RuleSet:
        """Raises ConfigError. No rules at all are for a receiver that only passes audit events on."""
        sinks = self._loaded.sinks.values()
        if self._loaded.rules or not all(takes_audit_events(settings) for _, settings in sinks):
            return load_rules(self._loaded.rules)
        return RuleSet(rules=(), ignore_namespaces=(), warnings=(), files=())

    def _detector(self, ruleset: RuleSet) -> Detector:
        settings = self._loaded.config.detection
        return Detector(
            ruleset,
            cluster=self._loaded.config.cluster,
            entity_namespace=settings.entity_namespace,
            own_namespace=settings.own_namespace,
            robots=settings.robots,
        )
