"""What can go wrong in training. One root: `VerlExtError`."""


class VerlExtError(Exception):
    """Root of the package. Its message is one line: expected, found, what to do."""


class ConfigError(VerlExtError):
    """The resolved configuration asks for something that cannot work."""


class EngineHookError(VerlExtError):
    """The engine did not pass through a hook that the CA loss depends on."""


class ModelError(VerlExtError):
    """A model folder is missing, or lacks its tokenizer or chat template."""


class EmptyBatchError(VerlExtError):
    """Every episode of a step was excluded, so there is nothing to learn from."""


class ImageTokensError(VerlExtError):
    """A row's images and its image tokens do not fit each other, or no model could take them."""
