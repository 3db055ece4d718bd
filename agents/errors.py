"""What can go wrong in a rollout. One root: `AgentsError`."""


class AgentsError(Exception):
    """Root of the package. Its message is one line: expected, found, what to do."""


class FormatError(AgentsError):
    """The model's text holds no single command. The message is the observation it gets back."""


class PolicyError(AgentsError):
    """The policy could not answer: the server failed, not the model."""


class ContextFullError(AgentsError):
    """The server says that the conversation no longer fits. The policy's doing: not excluded."""


class ChatTemplateError(AgentsError):
    """A tokenizer's chat template cannot be followed token by token."""


class EpisodeCancelledError(AgentsError):
    """The run is being stopped; the episode leaves no trajectory."""


class PromptTooLongError(AgentsError):
    """The task's first prompt leaves no room for a single reply within the context."""


class RunStoreError(AgentsError):
    """A run folder is missing, from another schema, or belongs to another configuration."""


class ForeignRowError(AgentsError):
    """A row of a public trajectory set is not in the shape of any format we read."""


class ForeignFileError(AgentsError):
    """A file of trajectories is missing, or is neither JSON, JSONL nor parquet."""
