"""Plays the scenario with real kubectl: against a kind cluster and a control plane without containers alike.

It knows neither: it is given a kubeconfig for each person, a way to read the backend's events, and the name of a node and
an image. A session stays open until its event stands in the backend; the time that this took is kept.
"""

import datetime as dt
import json
import os
import pty
import re
import string
import subprocess
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from tests.e2e.scenario import Action, Event, Row, Scenario, expected_rows, rows_of

BIG_FILE_BYTES = 300_000  # in a ConfigMap at level RequestResponse this is an audit line of 600 kB
POLL_S = 0.01  # the latencies are as exact as this
ACTION_S = 60.0  # for anything that a person would wait for; a shared machine may be slow
ROLLED_OUT = ("rollout", "status", "-n", "shop", "deployment/checkout", "--timeout=50s")
PODS = ("get", "pods", "-n", "shop", "-l", "app=checkout", "-o", "json")

Events = Callable[[], Sequence[Event]]


class Stage:
    """Where a scenario is played. `latencies_s`: from the start of kubectl to the open session in the backend, by action."""

    def __init__(
        self,
        scenario: Scenario,
        *,
        kubeconfig: Callable[[str], Path],
        events: Events,
        folder: Path,
        kubectl: str,
        words: dict[str, str],
    ) -> None:
        """words: what $node and $image stand for; further ones may be used by `objects`."""
        self.scenario, self._kubeconfig, self._events, self._kubectl = scenario, kubeconfig, events, kubectl
        self._folder = folder
        self._words = {**words, "folder": str(folder)}
        self.latencies_s: dict[str, float] = {}
        (folder / "big.txt").write_text("x" * BIG_FILE_BYTES)

    def prepare(self) -> None:
        """Make the objects, and wait for a pod."""
        documents = [json.dumps(document) for document in self.scenario.objects]
        for kind in ("Namespace", ""):  # namespaces first: the others stand in them
            batch = [document for document in documents if not kind or json.loads(document)["kind"] == kind]
            stdin = self._filled('{"apiVersion": "v1", "kind": "List", "items": [' + ", ".join(batch) + "]}")
            self._run(Action(name="objects", actor=self.scenario.setup, kubectl=("apply", "-f", "-"), stdin=stdin))
        self._pod()

    def play(self, actions: Sequence[Action] | None = None) -> None:
        """One after the other. Fails where kubectl does not do what the action says it does."""
        for action in self.scenario.actions if actions is None else actions:
            if any("$pod" in word for word in action.kubectl):
                self._words["pod"] = self._pod()
            if action.http:
                self._through_proxy(action)
            elif action.stays_open:
                self._session(action)
            else:
                self._run(action)

    def expected(self, actions: Sequence[Action] | None = None) -> list[Row]:
        """The rows of these actions; of all where none are named."""
        chosen = self.scenario.actions if actions is None else actions
        return [row for action in chosen for row in expected_rows(self.scenario, action, self._words)]

    # --- one action ----------------------------------------------------------------------------------------------

    def _filled(self, text: str) -> str:
        return string.Template(text).substitute(self._words)

    def _arguments(self, action: Action) -> list[str]:
        words = [self._filled(word) for word in action.kubectl]
        return [self._kubectl, "--kubeconfig", str(self._kubeconfig(action.actor)), *words]

    def _environment(self, action: Action) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "HOME": str(self._folder), **action.env}

    def _run(self, action: Action) -> str:
        run = subprocess.run(
            self._arguments(action), env=self._environment(action), cwd=self._folder, input=action.stdin,
            capture_output=True, text=True, timeout=ACTION_S, check=False,
        )  # fmt: skip
        assert (run.returncode != 0) == action.fails, (
            f"{action.name}: kubectl ended with {run.returncode}: {run.stderr[-2000:]}"
        )
        return run.stdout

    def _session(self, action: Action) -> None:
        """Open it, see its events arrive, see that it is still open, end it."""
        wanted = Counter(self.expected([action]))
        since = dt.datetime.now(dt.UTC).isoformat(timespec="microseconds")[
            :26
        ]  # the cluster runs on this machine, so by the same clock
        stdin, ours = _terminal() if action.tty else os.pipe()
        with open(self._folder / "session.log", "wb") as output:
            began = time.monotonic()
            process = subprocess.Popen(
                self._arguments(action), env=self._environment(action), cwd=self._folder, stdin=stdin, stdout=output, stderr=output
            )  # fmt: skip
        os.close(stdin)
        try:
            mine: list[Event] = []
            while rows_of(mine, wanted) != wanted and process.poll() is None and time.monotonic() < began + ACTION_S:
                time.sleep(POLL_S)
                mine = [
                    event
                    for event in self._events()
                    if event["timestamp"] >= since and rows_of([event], wanted) <= wanted
                ]
            self.latencies_s[action.name] = time.monotonic() - began
            said = (self._folder / "session.log").read_text(errors="replace")[-2000:]
            assert process.poll() is None, f"{action.name}: kubectl ended by itself: {said}"
            assert rows_of(mine, wanted) == wanted, f"{action.name}: {mine}, kubectl said: {said}"
            assert {(event["revision"], event["duration_s"]) for event in mine} == {(0, None)}, f"{action.name}: {mine}"
        finally:
            os.close(ours)
            process.terminate()
            process.wait(ACTION_S)

    def _through_proxy(self, action: Action) -> None:
        arguments = self._arguments(msgspec.structs.replace(action, kubectl=("proxy", "--port=0")))
        with subprocess.Popen(
            arguments, env=self._environment(action), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process:
            try:
                assert process.stdout is not None
                greeting = process.stdout.readline()
                address = re.search(r"127\.0\.0\.1:\d+", greeting)
                assert address, f"{action.name}: kubectl proxy said {greeting!r}"
                for http in action.http:
                    request = urllib.request.Request(f"http://{address.group()}{http.path}", headers=http.headers)
                    assert _status(request) == http.status, f"{action.name}: {http.path}"
            finally:
                process.terminate()

    def _pod(self) -> str:
        """The name of a pod of the checkout service that stays: what was changed before has been rolled out."""
        self._run(Action(name="the rollout", actor=self.scenario.setup, kubectl=ROLLED_OUT))
        pods = json.loads(self._run(Action(name="the pods", actor=self.scenario.setup, kubectl=PODS)))["items"]
        return str(next(pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"]))


def _terminal() -> tuple[int, int]:
    ours, theirs = pty.openpty()
    return theirs, ours


def _status(request: urllib.request.Request) -> int:
    try:
        with urllib.request.urlopen(request, timeout=ACTION_S) as answer:
            answer.read()
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
