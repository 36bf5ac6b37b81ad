"""Policies: where completions come from."""


class ContextOverflow(Exception):
    """The conversation no longer fits the model's context: an end of the rollout, the same in every arm, no fault."""
