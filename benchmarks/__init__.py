"""Benchmarks of jsc against torch and other packages; `python -m benchmarks` lists them.

    common       how a benchmark times, draws, and keeps what it found
    inputs       what is run: layers, networks, images, masks
    peers        other people's operators, to measure against
    convolution  one layer at a time
    networks     whole networks, and their training steps
    jpeg         the JPEG layer: speed, bits, and what it does to accuracy
    results      one short page for each benchmark

Folders import from those listed above them, and never the other way round.
"""
