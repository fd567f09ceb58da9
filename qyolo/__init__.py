"""The command line, the cluster, and the commands that neither build nor serve."""
