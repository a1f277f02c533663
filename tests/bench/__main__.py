"""`make bench`: what the receiver costs, and how it keeps up with a real Fluent Bit.

Measured: CPU per audit event of a whole `forwarder receive` process (user + system, all threads), fed over loopback with
frames built before; its peak memory; and the rate at which a real Fluent Bit with the shipped settings drains a log
into it, against the same Fluent Bit into a server that only discards and acknowledges, turn by turn in one run.
Not measured: the network, the agent's own cost, a disk that is slower than this one.

Ratios and CPU travel between machines; events per second do not.
"""

import argparse
import json
import platform
import shutil
import statistics
import subprocess
import tempfile
from importlib import metadata
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bench.agent import drain_rate
from tests.bench.doors import door_costs
from tests.bench.feed import feed_costs
from tests.bench.load import Load, build, floor_us, receiver_cost


def machine() -> str:
    model = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        "unknown CPU",
    )
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("msgspec", "msgpack"))
    return f"{model}, {platform.python_implementation()} {platform.python_version()}, {versions}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--lines", type=int, default=40_000, help="lines per case")
    parser.add_argument(
        "--repeat", type=int, default=3, help="runs per case; the best counts for CPU, the median for rates"
    )
    parser.add_argument("--agent-lines", type=int, default=100_000, help="lines for the run with Fluent Bit")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    console = Console(highlight=False)
    console.print(machine())
    cases = [
        Load("receive only (the floor)", connections=16),
        Load("raw lines, no hits, 16 connections", connections=16, friction_share=0.0),
        Load("raw lines, 1 % hits into the outbox, 16 connections", connections=16),
        Load("raw lines, 1 % hits, 1 connection", connections=1),
        Load("raw lines, 1 % hits, 1000 rules", connections=16, rules=1000),
        Load("gzip, 1 % hits", connections=16, compress="gzip"),
        Load("TLS, 1 % hits", connections=16, tls=True),
        Load("parsed maps, 1 % hits", connections=16, parsed=True),
    ]
    figures: dict[str, dict[str, float]] = {}
    table = Table(
        "case",
        "µs CPU / event",
        "events/s per core",
        "MB/s per core",
        "peak MiB",
        title=f"receiver, {options.lines:,} lines, best of {options.repeat}",
    )
    with tempfile.TemporaryDirectory() as folder:
        for number, case in enumerate(cases):
            frames = build(case, options.lines)
            runs = [
                floor_us(frames) if number == 0 else receiver_cost(case, frames, Path(folder) / f"{number}-{run}")
                for run in range(options.repeat)
            ]
            best = min(runs, key=lambda run: run.us_per_event)
            figures[case.name] = {"us_per_event": best.us_per_event, "peak_mib": best.peak_mib}
            rate = 1e6 / best.us_per_event
            table.add_row(
                case.name,
                f"{best.us_per_event:.2f}",
                f"{rate:,.0f}",
                f"{rate * frames.mean_bytes / 1e6:,.0f}",
                f"{best.peak_mib:.0f}",
            )
        console.print(table)
        for cost in feed_costs(options.lines // 4):
            figures[cost.name] = {"us_per_event": cost.us_per_event, "events_per_s": cost.events_per_s}
            console.print(f"{cost.name}: {cost.us_per_event:.0f} µs CPU an event, {cost.events_per_s:,.0f} events/s")
        doors = Table("door", "µs CPU / event", "events/s per core", "peak MiB", title="the other doors, 1 % hits")
        for name, cost in door_costs(options.lines, Path(folder) / "doors"):
            figures[name] = {"us_per_event": cost.us_per_event, "peak_mib": cost.peak_mib}
            doors.add_row(name, f"{cost.us_per_event:.2f}", f"{1e6 / cost.us_per_event:,.0f}", f"{cost.peak_mib:.0f}")
        console.print(doors)
        program = shutil.which("fluent-bit")
        if program:
            version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.split(
                "\n"
            )[0]
            pairs = [
                drain_rate(program, Path(folder) / f"agent-{run}", options.agent_lines) for run in range(options.repeat)
            ]
            ratio = statistics.median(pair.ratio for pair in pairs)
            discard = statistics.median(pair.discard_rate for pair in pairs)
            figures["fluent-bit"] = {"discard_rate": discard, "ratio": ratio}
            console.print(
                f"{version}: {discard:,.0f} events/s into discard-and-ack; into the receiver {ratio:.0%} of that (each pair: {', '.join(f'{pair.ratio:.0%}' for pair in pairs)})"
            )
        else:
            console.print("no fluent-bit on PATH: its rate was not measured")
    if options.json:
        options.json.write_text(json.dumps({"machine": machine(), "figures": figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
