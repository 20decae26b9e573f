"""CPC: convolution over the non-zeros of a channels-last map, and its gradients.

task.h      one task of the sweep, for those who hand tasks over
masks.h     which channels of a pixel are not zero
sweep.h     the sweep of one task
forward.h   a whole convolution: rounds of tasks
gradient.h  gradients that visit non-zeros   gradient_weight.h  weights between layouts
"""
