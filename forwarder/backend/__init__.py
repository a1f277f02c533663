"""The friction backend: stores events, scores services, answers the Healert API."""
