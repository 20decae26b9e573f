"""The slow obvious version of everything, in torch: the oracle of the tests."""
