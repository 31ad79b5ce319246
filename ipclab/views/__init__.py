"""Everything that draws: a record in, text out.

The text layouts here are made by hand, not by rich: `ipclab list` has 0.4 s for everything, and one layout that is the
same in a terminal, in a pipe, in ASCII and without colour is one layout to read and to test. Colour only repeats what a
word says already.
"""
