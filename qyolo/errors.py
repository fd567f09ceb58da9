"""The one error of the command line itself."""


class CommandError(Exception):
    """A command cannot run with these arguments or in this environment; the message is one line."""
