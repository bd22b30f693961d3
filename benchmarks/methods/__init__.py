"""All methods, by name. Each family lists its own; nothing heavy is imported before a method runs."""

from __future__ import annotations

from benchmarks.method import Entry
from benchmarks.methods import anomalib_list, diffusion_list, ours_list, simple_list

METHODS: dict[str, Entry] = {
    entry.name: entry
    for entry in (*ours_list.ENTRIES, *anomalib_list.ENTRIES, *diffusion_list.ENTRIES, *simple_list.ENTRIES)
}
"""In the order of the tables: ours, the peers of anomalib, the diffusion peers, the simple baselines."""
