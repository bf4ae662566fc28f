"""What a job can say besides «done»; the command line turns each into its exit code."""


class SufficeError(Exception):
    """A message for people: it names the place and the remedy."""

    exit_code = 1


class Refused(SufficeError):
    """The job ran, and its own answer is no (a gate, drift): exit code 1."""


class BadInput(SufficeError):
    """The input or the call is wrong; nothing was written: exit code 2."""

    exit_code = 2


class EnvironmentProblem(SufficeError):
    """Something this machine should offer is missing (an extra, a server, space): exit code 3."""

    exit_code = 3
