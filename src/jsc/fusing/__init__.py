"""Networks with layers fused, on request (`fuse=True`): to be replaced by the network program.

graph    the forward of a network as a list of steps, traced on a private copy
chains   which steps run in the store of a convolution
program  the steps of one kind of input, scheduled
guard    what a program depends on, compared before every call
fuse     the `forward` that a network is given
"""
