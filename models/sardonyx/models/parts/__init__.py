"""Parts of networks: each a frozen value that knows its weights and writes itself into a graph."""
