"""Models that come as a graph instead of a description: traced by another program, brought home by this
one."""
