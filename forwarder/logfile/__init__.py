"""A log in this machine's file system: which files belong to it, where its lines end, how far it was read."""
