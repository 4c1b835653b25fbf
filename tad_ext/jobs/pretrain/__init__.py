"""`tad pretrain`."""
