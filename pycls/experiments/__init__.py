"""Experiments that show what a technique does: real data, minutes on a CPU, several seeds."""
