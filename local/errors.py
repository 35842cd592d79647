"""What ends a local command in words instead of a traceback."""


class CommandError(Exception):
    """Something a person can put right: what happened and why, then the command that helps; with an exit code.

    The codes: 2 wrong use or setting, 3 bad input, 4 a service or port that cannot be had, 1 anything else.
    """

    def __init__(self, what: str, remedy: str, exit_code: int) -> None:
        """Keep the exit code beside the two lines to print."""
        super().__init__(f"{what}\n  {remedy}")
        self.exit_code = exit_code
