"""Events and runs on many machines, by schedulers that are there already: Dask, MPI, Slurm, HTCondor."""
