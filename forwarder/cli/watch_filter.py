"""Which messages `forwarder watch` shows. Filtering is the client's: the protocol has no filter by field."""

import fnmatch
import re
from collections.abc import Callable, Sequence

from forwarder.cli.watch_view import LEVELS, Facts
from forwarder.errors import ConfigError

Accepts = Callable[[str], bool]


class Filter:
    """All that is given must hold. Globs ignore case; of several for one option, one is enough.

    A rule and a severity only alerts have, a namespace and an actor alerts and logs: what a stream does not have is not
    asked of it. regex: searched in `cluster/namespace/service actor rule what command outcome`.
    """

    def __init__(
        self,
        *,
        namespaces: Sequence[str] = (),
        rules: Sequence[str] = (),
        actors: Sequence[str] = (),
        severity: str = "",
        regex: str = "",
    ) -> None:
        """severity: the lowest to show. Raises ConfigError."""
        if severity and severity not in LEVELS:
            raise ConfigError(f"{severity!r} is no severity; valid: {', '.join(LEVELS)}", where="--severity")
        try:
            self._regex = re.compile(regex, re.IGNORECASE) if regex else None
        except re.error as error:
            raise ConfigError(f"{regex!r} is no regular expression: {error}", where="--regex") from None
        self._namespace, self._rule, self._actor = _globs(namespaces), _globs(rules), _globs(actors)
        self._lowest = LEVELS.index(severity) if severity else 0

    def __call__(self, fact: Facts) -> bool:
        if fact.stream == "alerts":
            lowest = LEVELS.index(fact.level) >= self._lowest
            if not (lowest and self._rule(fact.rule)):
                return False
        if fact.stream != "messages" and not (self._namespace(fact.namespace) and self._actor(fact.actor)):
            return False
        if self._regex is None:
            return True
        text = " ".join((fact.where, fact.actor, fact.rule, fact.what, fact.command, fact.outcome))
        return self._regex.search(text) is not None


def _globs(patterns: Sequence[str]) -> Accepts:
    if not patterns:
        return lambda _: True
    one = re.compile("|".join(f"(?:{fnmatch.translate(pattern)})" for pattern in patterns), re.IGNORECASE)
    return lambda text: one.match(text) is not None
