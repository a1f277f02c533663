"""More than one core: a Forward door whose connections are served by processes of their own.

    parent (door.py)                                  worker (worker.py), spawned, one per core
    listens, accepts ── connection, to the idlest ──► reads, decodes, screens
    detects, commits ◄── batch of candidates ──────── holds what it sent unacknowledged
                     ─── accepted, or why not ──────► acknowledges
    adds up          ◄── counters, once a second

The parent alone has rules, outbox, sinks and telemetry, so ledger and order are those of one process. A worker that
dies has acknowledged nothing that was not durable: its clients send again, to the worker that takes its place.
"""
