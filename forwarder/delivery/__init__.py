"""Delivery: one thread per sink that offers it events and acts on what it answers. A dead sink delays nobody but itself.

    Delivery(outbox, sink, telemetry)            friction events: what is due in the outbox, each answer stored
    Stream(sink, settings, wants, telemetry)     audit events: a bounded queue in memory that may join the acknowledgement
    Turns(at_once)                               who may begin, where a stream joins the acknowledgement

What the first two share, a sink that raises and a sink that puts off, stands in `offering`.
"""

from forwarder.delivery.durable import Delivery
from forwarder.delivery.stream import Stream
from forwarder.delivery.turns import Turns

__all__ = ["Delivery", "Stream", "Turns"]
