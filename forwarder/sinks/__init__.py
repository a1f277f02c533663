"""Where friction events go out; one file per sink."""
