"""Execution of a job in one process: settings, context, cluster, start."""
