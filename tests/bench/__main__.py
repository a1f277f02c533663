"""`make bench`: what the receiver costs, and how it keeps up with a real Fluent Bit.

Measured: CPU per audit event of a whole `forwarder receive` process (user + system, all threads, workers included), fed
over 16 loopback connections with frames built before; its peak memory; and the rate at which a real Fluent Bit with the
shipped settings drains a log into it, against the same Fluent Bit into a server that only discards and acknowledges, turn by
turn in one run. The floor is a server that receives the same bytes and forgets them; the reference is the receiver without
its fast path, decoding every line.
Not measured: the network, the agent's own cost, a disk that is slower than this one.

Ratios and CPU travel between machines, within limits; events per second do not.
"""

import argparse
import platform
import shutil
import statistics
import subprocess
import tempfile
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from tests.bench.agent import drain_rate
from tests.bench.chart import draw
from tests.bench.doors import door_costs
from tests.bench.feed import feed_costs
from tests.bench.load import HIT_SHARE, Load, build, floor_cost, receiver_cost

FLOOR = Load("receive and forget (the floor)")
CASES = (
    FLOOR,
    Load("raw lines, 20 rules"),
    Load("raw lines, 1000 rules", rules=995),
    Load("raw lines, 1 % events, outbox", friction_share=HIT_SHARE),
    Load("gzip", compress="gzip"),
    Load("parsed maps", parsed=True),
    Load("TLS", tls=True),
    Load("nothing canonical (sorted keys)", lines="sorted"),
    Load("hostile: every line a new namespace", lines="hostile"),
    Load("two workers", workers=2),
    Load("reference: every line decoded", reference=True),
)


class Figure(msgspec.Struct):
    """One row. us: CPU per event, microseconds. to_floor, to_reference: ratios. peak_mib: of all its processes."""

    name: str
    us: float
    to_floor: float
    to_reference: float
    events_per_core_s: int
    peak_mib: int


class Other(msgspec.Struct):
    """What the other doors and the live feed cost; the floor and the reference are the Forward door's.

    peak_mib: of the receiver; None for the feed, which is measured in this process.
    """

    name: str
    us: float
    events_s: int
    peak_mib: int | None = None


class Agent(msgspec.Struct):
    version: str
    discard_events_s: int
    ratio: float
    ratios: list[float]


class Result(msgspec.Struct):
    """What is committed as tests/bench/result.json. load: of the machine beside us, processes that wanted to run."""

    when: str
    machine: str
    versions: str
    lines: int
    repeat: int
    mean_bytes: int
    load: float
    figures: list[Figure]
    others: list[Other] = []
    agent: Agent | None = None


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown CPU")
    cores = sum(line.startswith("processor") for line in lines)
    return f"{model}, {cores} cores, Linux {platform.release()}"


def versions() -> str:
    packages = ", ".join(f"{name} {metadata.version(name)}" for name in ("msgspec", "msgpack", "isal"))
    return f"{platform.python_implementation()} {platform.python_version()}, {packages}"


def measure(cases: tuple[Load, ...], lines: int, repeat: int, folder: Path, say) -> tuple[list[Figure], int]:
    """The best of `repeat` fresh processes for each case, and the mean size of a line."""
    costs, mean_bytes = {}, 0.0
    for number, case in enumerate(cases):
        frames = build(case, lines)
        mean_bytes = mean_bytes or frames.mean_bytes
        runs = [
            floor_cost(frames) if case is FLOOR else receiver_cost(case, frames, folder / f"{number}-{run}")
            for run in range(repeat)
        ]
        costs[case.name] = min(runs, key=lambda run: run.us_per_event)
        say(f"{case.name}: " + ", ".join(f"{run.us_per_event:.2f}" for run in runs))
    floor, reference = costs[cases[0].name].us_per_event, costs[cases[-1].name].us_per_event
    return [
        Figure(name, round(cost.us_per_event, 2), round(cost.us_per_event / floor, 2), round(cost.us_per_event / reference, 3),
               int(1e6 / cost.us_per_event), round(cost.peak_mib))
        for name, cost in costs.items()
    ], round(mean_bytes)  # fmt: skip


def other_doors(lines: int, folder: Path) -> list[Other]:
    found = [Other(cost.name, round(cost.us_per_event, 1), int(cost.events_per_s)) for cost in feed_costs(lines // 4)]
    for name, cost in door_costs(lines, folder):
        found.append(Other(name, round(cost.us_per_event, 2), int(1e6 / cost.us_per_event), round(cost.peak_mib)))
    return found


def with_fluent_bit(lines: int, repeat: int, folder: Path) -> Agent | None:
    program = shutil.which("fluent-bit")
    if not program:
        return None
    about = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    pairs = [drain_rate(program, folder / f"agent-{run}", lines) for run in range(repeat)]
    return Agent(
        about.split("\n")[0],
        int(statistics.median(pair.discard_rate for pair in pairs)),
        round(statistics.median(pair.ratio for pair in pairs), 3),
        [round(pair.ratio, 3) for pair in pairs],
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--lines", type=int, default=200_000, help="audit lines per run")
    parser.add_argument("--repeat", type=int, default=5, help="runs per case; the best counts")
    parser.add_argument("--only", default="", help="cases whose name holds this, with floor and reference")
    parser.add_argument(
        "--other-lines", type=int, default=40_000, help="lines for the other doors and the feed; 0: none"
    )
    parser.add_argument("--agent-lines", type=int, default=400_000, help="lines for the runs with Fluent Bit; 0: none")
    parser.add_argument("--agent-repeat", type=int, default=7, help="pairs of runs with Fluent Bit; the median counts")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--chart", type=Path, help="draw them here, as SVG")
    options = parser.parse_args()
    console = Console(highlight=False)
    cases = (CASES[0], *(case for case in CASES[1:-1] if options.only in case.name), CASES[-1])
    load = float(Path("/proc/loadavg").read_text().split()[0])
    with tempfile.TemporaryDirectory() as folder:
        figures, mean_bytes = measure(cases, options.lines, options.repeat, Path(folder), console.print)
        others = other_doors(options.other_lines, Path(folder) / "doors") if options.other_lines else []
        agent = (
            with_fluent_bit(options.agent_lines, options.agent_repeat, Path(folder)) if options.agent_lines else None
        )
    result = Result(
        datetime.now(UTC).strftime("%Y-%m-%d"),
        machine(),
        versions(),
        options.lines,
        options.repeat,
        mean_bytes,
        load,
        figures,
        others,
        agent,
    )
    show(console, result)
    if options.json:
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(result)) + b"\n")
    if options.chart:
        options.chart.write_text(
            draw([(figure.name, figure.us) for figure in figures], f"{result.machine}; {result.versions}")
        )


def show(console: Console, result: Result) -> None:
    title = f"{result.lines:,} lines of {result.mean_bytes:,} bytes, best of {result.repeat}\n{result.machine}, load {result.load}\n{result.versions}"
    table = Table("case", "µs CPU/event", "x floor", "x reference", "events/s per core", "peak MiB", title=title)
    for figure in result.figures:
        table.add_row(
            figure.name, f"{figure.us:.2f}", f"{figure.to_floor:.1f}", f"{figure.to_reference:.2f}",
            f"{figure.events_per_core_s:,}", str(figure.peak_mib),
        )  # fmt: skip
    console.print(table)
    for other in result.others:
        memory = f", peak {other.peak_mib} MiB" if other.peak_mib else ""
        console.print(f"{other.name}: {other.us:.1f} µs CPU an event, {other.events_s:,} events/s{memory}")
    if result.agent:
        each = ", ".join(f"{ratio:.0%}" for ratio in result.agent.ratios)
        console.print(
            f"{result.agent.version}: {result.agent.discard_events_s:,} events/s into discard-and-ack; into the receiver {result.agent.ratio:.0%} of that (each pair: {each})"
        )


if __name__ == "__main__":
    main()
