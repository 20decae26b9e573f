"""Whole networks: instructions over channels-last maps, and the team of threads that walks them.

instruction.h   what an instruction is; maps; where they lie in a call
activation.h    what is done to a number before it is stored
convolution.h   direct convolution, any geometry   winograd.h     depthwise.h
pool.h          max, average, adaptive    linear.h      elementwise.h
normalise.h     lrn, softmax, layer-norm  resize.h      copy.h
team.h          stages of independent instructions, a barrier, the walk
program.pyx     a list of instructions made from named fields, and its call
"""
