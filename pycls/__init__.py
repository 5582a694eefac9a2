"""Classification in PyTorch: heads, losses, labels, samplers, metrics, solver, trainer."""
