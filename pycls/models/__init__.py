"""Nets written in PyTorch, beside those that come from Caffe."""
