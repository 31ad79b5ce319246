"""Demos as `ipclab demo` handles them: catalogue (where they are, what they say of themselves), running (one as a process,
seen from its parent), perform (the same process, seen from inside). The demos themselves stand in the folder demos/."""
