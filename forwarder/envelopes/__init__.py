"""The forms in which other systems hand over audit events, and the way from them to batches of audit lines."""
