"""Messages to people: which one is next, what it says, and when nobody is to be woken. Pure; the sinks bring the wire."""
