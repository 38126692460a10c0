"""The one exception that means: the user can mend this."""


class InputError(Exception):
    """Bad input: a config, a data set, a launch or an output folder that cannot be used.

    The message is one line that says what was found, what was expected and the remedy. `comm.world` prints it once,
    without a traceback, and ends the job with exit code 2 on every rank.
    """
