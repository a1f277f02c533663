"""What flows: audit events in, friction events out."""
