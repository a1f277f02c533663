"""The dashboard: pages made on the server, that work without script and without anything from elsewhere."""
