"""Demos as `ipclab demo` handles them; the demos themselves stand in the folder demos/.

catalogue: where they are, and what each file says of itself. running: one as a process, seen from its parent. perform:
the same process, seen from inside.
"""
