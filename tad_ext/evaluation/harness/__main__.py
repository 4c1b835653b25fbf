"""The command of lm-evaluation-harness with the model `tad`; its code tasks run as the harness runs them."""

from lm_eval.__main__ import cli_evaluate

import tad_ext.evaluation.harness  # noqa: F401 - registers the model

if __name__ == "__main__":
    cli_evaluate()
