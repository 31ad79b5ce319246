"""The command line: one file per command, no logic. Parse, call, hand the record to a view."""
