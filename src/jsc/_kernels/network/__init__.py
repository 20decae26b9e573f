"""Whole networks: instructions over channels-last maps, and the team of threads that walks them.

instruction.h   maps, and what an instruction answers
activation.h    what is done to a sum before it is stored
convolution.h   direct convolution, any geometry       pointwise.h   1x1 without stride
winograd.h      3x3 without stride                     depthwise.h   grouped.h, of few channels
sparse.h        over the non-zeros (cpc)               tiles.h       on AMX tiles
groups.h        loops over the channels of a pixel     power.h       logarithm, powers, exp
functions.h     numbers by rarer functions             channels.h    activations and bounds in loops
pool.h          max, average   adaptive_pool.h         linear.h      elementwise.h
normalise.h     lrn, softmax, layer-norm  group_norm.h  resize.h      copy.h
team.h          stages of independent instructions, a barrier, the walk
program.pyx     a list of instructions made from named fields, and its call
"""
