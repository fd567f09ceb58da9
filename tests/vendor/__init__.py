"""What only NVIDIA's driver can do, imitated; the compiler and its bindings are the real ones."""
