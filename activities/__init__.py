"""What a turn does outside its workflow: model calls, tool runs, rows. Every one of them may run twice."""
