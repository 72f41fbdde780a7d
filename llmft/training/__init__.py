"""One Trainer for every task: arguments, sampling, callbacks, prediction."""
