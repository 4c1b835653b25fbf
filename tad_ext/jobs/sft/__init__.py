"""`tad sft`."""
