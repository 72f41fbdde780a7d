"""The section `task` of each task: a file of the task's name holds one model."""
