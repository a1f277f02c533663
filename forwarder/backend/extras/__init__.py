"""The versioned API under /api/v1: everything that the dashboard shows, for programs."""
