"""The live feed: who watches sees friction events, audit events and our own notices as they happen, over gRPC.

It is a tap. Nothing waits for it, nothing is encoded while nobody listens, and whoever reads too slowly loses events and
is told how many. Its clients are `forwarder watch` and everything that reads KubeArmor's log feeder, `karmor logs` first.
"""

import os

# gRPC's core writes to stderr by itself: a line for every stranger who does not speak TLS. What matters is logged by us.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
