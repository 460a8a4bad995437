"""What users may spend in a day and a week: windows, counters, and the answer to whether a turn may start."""
