"""CPO and CPS: streams of the non-zeros of planes, column by column, and convolution from them."""
