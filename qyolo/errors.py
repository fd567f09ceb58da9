"""The one error of the command line itself."""


class CommandError(Exception):
    """A command cannot do what its user or the environment asks for; the message is one line."""
