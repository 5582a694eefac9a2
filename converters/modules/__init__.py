"""Torch modules for what torch has no module for, one file a family. They import torch alone: generated source takes them over."""
