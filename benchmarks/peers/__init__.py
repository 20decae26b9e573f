"""Other people's operators, rebuilt from their definitions in plain torch, to measure against."""
