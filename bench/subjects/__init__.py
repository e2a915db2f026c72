"""What is measured: each a program of its own, run as a process, so that none disturbs another."""
