"""How a benchmark times its methods, reads its options, draws, and keeps what it found."""
