"""Many runs by one command: sweeps (`-m`), folds as jobs, and searches (`search=`)."""
