"""The narrow waist: everything below it is a way to run a decoder graph on arrays."""
