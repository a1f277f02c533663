"""Where audit events come in; one file per source."""
