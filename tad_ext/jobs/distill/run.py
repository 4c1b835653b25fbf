"""`tad distill`."""

from tad_ext.distillation.trainer import distill as distill
