"""Clusters: their files, and jobs on a running one."""
