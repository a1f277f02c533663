"""How bytes travel: the Forward protocol without IO, and listening sockets with TLS and authentication."""
