"""One module per asset group. An asset names a job of the library, its inputs and its checks, and nothing else."""
