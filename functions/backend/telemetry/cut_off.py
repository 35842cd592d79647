"""An answer that is ended on purpose before its end."""


class CutOffError(Exception):
    """Leaves an answer without its end, which is how its reader can tell half of it from the whole.

    Raised into the server, which closes the connection. The request's line in the log has the reason, and nothing else
    in the log is said of it: no code of ours has failed.
    """
