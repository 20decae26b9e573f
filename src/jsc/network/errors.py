"""What `jsc.compile` raises."""


class CompileError(RuntimeError):
    """The model cannot be compiled; the message says what stands in the way and what to do."""


class NotOneGraph(CompileError):
    """torch.export does not take the model as one graph; its parts may still be compiled."""
