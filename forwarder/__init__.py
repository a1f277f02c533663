"""friction-forwarder: Kubernetes audit events in, friction events out, each counted exactly once."""

__version__ = "0.1.0"
