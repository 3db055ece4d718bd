"""What can go wrong between trajectories and prompts. One root: `PairsError`."""


class PairsError(Exception):
    """Root of the package. Its message is one line: expected, found, what to do."""


class PatchError(PairsError):
    """A patch is not a unified diff we can read."""


class LeakError(PairsError):
    """The answer patch can still be read in a masked context."""


class PairFileError(PairsError):
    """A pair file is missing, malformed, or its label is neither letter."""


class OptionTokenError(PairsError):
    """An option letter is not one token in this tokenizer."""


class PromptBudgetError(PairsError):
    """A rendered pair is longer than the budget and may not be trimmed further."""


class SourceError(PairsError):
    """A source of trajectories is missing, or what reads it is not installed."""


class JudgeError(PairsError):
    """A model's endpoint cannot be used at all: no verdict, no bill."""


class EndpointBusyError(JudgeError):
    """The endpoint failed on every try with something that may pass."""


class RefusedError(JudgeError):
    """The endpoint gave no whole answer to one question: refused, cut off or empty."""


class SpentError(PairsError):
    """The money that a run may spend is spent."""


class EmbeddingError(PairsError):
    """Images could not be embedded, or their vectors do not go with the ones at hand."""


class ImageError(PairsError):
    """An image file that we do not open, or that is not the one it should be."""
