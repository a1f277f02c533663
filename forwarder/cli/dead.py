"""`forwarder dead list | show | retry | forget`: what could not be read or delivered, and sending it again.

Works while the receiver runs and while it is down: it reads the outbox itself.
"""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from forwarder.cli import console
from forwarder.cli.console import Output, out, plural, say, stop
from forwarder.cli.places import Config, DataDir, find_places
from forwarder.logs import clean

if TYPE_CHECKING:
    from forwarder.outbox import StoredDeadLetter

app = typer.Typer(no_args_is_help=True, help="Dead letters: list, show, retry, forget.")

Ids = Annotated[list[int] | None, typer.Argument(help="Numbers from `forwarder dead list`.", metavar="[ID]...")]


@app.command("list")
def list_dead(
    config: Config = None,
    folder: DataDir = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="The newest so many.")] = 100,
    output: Annotated[Output, typer.Option(help="For people or for machines.")] = Output.table,
) -> None:
    """The newest dead letters: what, from where, why."""
    from forwarder.outbox import dead_letters

    letters = dead_letters(find_places(config, folder).outbox, limit=limit)
    if output is Output.ndjson:
        for letter in letters:
            console.ndjson(_facts(letter))
        return
    if not letters:
        out("no dead letters")
        return
    columns = ("id", "time", "kind", "from / to", "bytes", "reason")
    rows = [(one.id, _time(one.at), one.kind, one.name, one.size_bytes, one.reason) for one in letters]
    console.table(columns, rows, right=("id", "bytes"))
    say("`forwarder dead show ID` shows one, `forwarder dead retry` sends deliveries again")


@app.command()
def show(
    letter_id: Annotated[int, typer.Argument(help="Number from `forwarder dead list`.", metavar="ID")],
    config: Config = None,
    folder: DataDir = None,
) -> None:
    """Everything that is kept of one dead letter; an event as JSON."""
    from forwarder.outbox import dead_letter

    letter = dead_letter(find_places(config, folder).outbox, letter_id)
    if letter is None:
        stop(f"there is no dead letter {letter_id}; `forwarder dead list` shows what there is")
    for name, value in _facts(letter).items():
        out(f"{name:<14}{clean(str(value))}")
    if letter.payload is not None:
        out(f"{'payload':<14}{clean(letter.payload.decode('utf-8', 'replace'))}")


@app.command()
def retry(
    ids: Ids = None,
    everything: Annotated[bool, typer.Option("--all", help="All deliveries that failed.")] = False,
    sink: Annotated[str, typer.Option(help="Only those of this sink.")] = "",
    config: Config = None,
    folder: DataDir = None,
) -> None:
    """Make failed deliveries due again; a running receiver sends them within a second."""
    from forwarder.outbox import retry_dead

    if not ids and not everything and not sink:
        stop("which? give numbers from `forwarder dead list`, --sink NAME or --all", console.USAGE)
    result = retry_dead(find_places(config, folder).outbox, ids or None, sink=sink or None)
    out(f"{plural(result.put_back, 'delivery', 'deliveries')} put back")
    if result.records:
        say(
            f"{plural(result.records, 'record')} cannot be sent again: nobody could read the line; mend and replay its log"
        )
    if result.no_sink:
        stop(f"{plural(result.no_sink, 'delivery', 'deliveries')} stay: their sink is no longer configured")
    if ids and not result.put_back and not result.records:
        stop("no dead letter has such a number; `forwarder dead list` shows what there is")


@app.command()
def forget(
    ids: Annotated[list[int], typer.Argument(help="Numbers from `forwarder dead list`.", metavar="ID...")],
    config: Config = None,
    folder: DataDir = None,
) -> None:
    """Drop dead letters that are dealt with; deliveries stay counted as dead."""
    from forwarder.outbox import forget_dead

    out(f"{plural(forget_dead(find_places(config, folder).outbox, ids), 'dead letter')} dropped")


def _facts(letter: "StoredDeadLetter") -> dict[str, Any]:
    """All but the payload; what is unknown is left out."""
    facts = {
        "id": letter.id, "time": _time(letter.at), "kind": letter.kind, "name": letter.name, "reason": letter.reason,
        "size_bytes": letter.size_bytes, "offset_bytes": letter.offset_bytes, "sha256": letter.sha256,
        "head": letter.head, "event_id": letter.event_id,
    }  # fmt: skip
    return {name: value for name, value in facts.items() if value not in ("", -1)}


def _time(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
