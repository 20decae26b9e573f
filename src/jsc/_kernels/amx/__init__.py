"""Dense convolution on AMX tiles."""
