"""`forwarder policy check | suggest`: does an audit policy feed the rules, and which one would?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from forwarder.cli import console
from forwarder.cli.console import FAILED, Output, out, plural, warn
from forwarder.cli.rules import load

if TYPE_CHECKING:
    from forwarder.detection.coverage import Coverage

app = typer.Typer(no_args_is_help=True, help="Check an audit policy against rules, or write one for them.")

Rules = Annotated[
    list[Path] | None,
    typer.Option("--rules", help="Rule file or folder, may be given again; the shipped friction.yaml."),
]


@app.command()
def check(
    policy: Annotated[Path, typer.Argument(help="The file behind kube-apiserver's --audit-policy-file.")],
    rules: Rules = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 also where a rule is fed only partly.")] = False,
    output: Annotated[Output, typer.Option(help="For people or for machines.")] = Output.table,
) -> None:
    """Which rules can never fire under this policy, or not on everything; exit 1 when one can never fire."""
    from forwarder.detection.coverage import coverage, notes
    from forwarder.detection.policy import load_policy

    ruleset = load(rules)
    loaded = load_policy(policy)
    found = coverage(ruleset, loaded)
    for one in found:
        if output is Output.ndjson:
            console.ndjson(one)
        else:
            _tell(one)
    for note in notes(ruleset, loaded):
        warn(note)
    numbers = {verdict: sum(one.verdict == verdict for one in found) for verdict in ("fed", "partly", "never")}
    if output is Output.table:
        out(f"{plural(len(found), 'rule')}: {numbers['fed']} fed, {numbers['partly']} partly, {numbers['never']} never")
    if numbers["never"] or (strict and numbers["partly"]):
        raise typer.Exit(FAILED)


@app.command()
def suggest(
    rules: Rules = None,
    drop_service_accounts: Annotated[
        bool,
        typer.Option(
            "--drop-service-accounts",
            help="Leave out what service accounts do; right only where none acts for people (Rancher, Teleport, …).",
        ),
    ] = False,
) -> None:
    """Write the smallest policy that feeds the rules, at the least volume, to standard output."""
    from forwarder.detection.suggestion import suggest as suggested

    out(suggested(load(rules), drop_service_accounts=drop_service_accounts).rstrip("\n"))


def _tell(one: "Coverage") -> None:
    mark = {"fed": console.mark(True), "partly": "~", "never": console.mark(False)}[one.verdict]
    out(f"{mark} {one.rule}{'' if one.verdict == 'fed' else f': {one.verdict}'}")
    for finding in one.findings:
        out(f"    {'not' if finding.lost else 'not wholly'}: {finding.what}")
        out(f"        {finding.why}")
