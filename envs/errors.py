"""What can go wrong between us and a sandbox. One root: `EnvsError`."""


class EnvsError(Exception):
    """Root of the package. Its message is one line: expected, found, what to do."""


class TaskRowError(EnvsError):
    """A dataset row is not a task: a field is missing or has the wrong shape."""


class SandboxError(EnvsError):
    """Infrastructure failed. Never the policy's doing: the episode is excluded, not scored."""


class EngineUnavailableError(SandboxError):
    """No Docker engine answers, or we may not talk to it."""


class ImageError(SandboxError):
    """The task's image is absent and could not be pulled or built."""


class TaskSetupError(SandboxError):
    """The image is there but the task's start state could not be made in it."""


class MutationError(EnvsError):
    """A package could not be turned into validated tasks."""
