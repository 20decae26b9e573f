"""Whole networks: instructions over channels-last maps, and the team of threads that walks them.

convolution.h   direct convolution, any geometry   winograd.h     depthwise.h
grouped.h       direct convolution of few channels, 3 wide
channels.h      loops over the channels of a pixel     power.h       logarithm, powers, exp
pool.h          max, average   adaptive_pool.h         linear.h      elementwise.h
normalise.h     lrn, softmax, layer-norm  resize.h      copy.h
team.h          stages of independent instructions, a barrier, the walk
program.pyx     a list of instructions made from named fields, and its call
"""
