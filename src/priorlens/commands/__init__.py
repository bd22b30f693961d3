"""The command line: one file a command, what several share in `options`, `terminal` and `results`."""
