"""The command line, `python -m jsc`.

main.py      arguments, errors, exit codes
states.py    files of weights
doctor.py    is this installation in order?
tables.py    show, draw and export quantisation tables
tune.py      choose convolution methods for a model given as FILE.py:factory
benchmark/   a compiled model beside torch and other runtimes
demo/        train a network with and without the JPEG layer, then compile it
"""
