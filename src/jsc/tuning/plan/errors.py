"""What goes wrong with plans: one error, one warning."""


class PlanError(ValueError):
    """A plan cannot be read, or does not fit the model it is applied to."""


class PlanWarning(UserWarning):
    """A plan was made in other circumstances: its times may not hold here, its results do."""
