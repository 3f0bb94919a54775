"""Training wing: torch model, CPU kernels, data, augmentation, loop (docs/lnlstm.md, docs/design.md)."""
