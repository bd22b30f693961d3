from benchmarks.method import Entry

ENTRIES: tuple[Entry, ...] = ()
