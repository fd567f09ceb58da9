"""The command line, and what its commands do that is neither a build nor a server."""
