"""The oracle of the tests: every operator by its definition, slowly, in torch.

Nothing that runs in production imports it, and it imports nothing of that: an error in one of them
cannot hide in the other.
"""
