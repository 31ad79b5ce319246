"""What this machine, this user and this installation are: read from /proc, /sys and the system calls, never guessed."""
