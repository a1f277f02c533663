"""Who may do what: keys, sessions of browsers, and the gate in front of every route."""
