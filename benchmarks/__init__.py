"""Every method and its peers on the same images, machine and metric code: see docs/benchmarks.md."""
