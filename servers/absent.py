"""What is raised where there is no server."""


class ServerAbsent(Exception):
    """There is no such server here; the message says what was looked for."""
