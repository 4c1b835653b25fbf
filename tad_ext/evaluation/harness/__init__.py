"""lm-evaluation-harness: importing this package registers the model `tad` with it, so that its tasks are answered by
masked diffusion models.

model.py      the model: generation by `decode_stream`, likelihoods by `tad_ext.evaluation.likelihood`
cache.py      the harness's response cache, in JSON
code_eval.py  model-written code, which the harness's metrics would run in its own process, in the sandbox
__main__.py   the harness's own command, with the model registered: python -m tad_ext.evaluation.harness
"""

try:
    import lm_eval as _lm_eval  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "lm-evaluation-harness is not installed: pip install 'tad_ext[lm-eval]', or lm_eval"
    ) from error

from tad_ext.evaluation.harness.cache import cache_in_json as cache_in_json
from tad_ext.evaluation.harness.code_eval import SandboxedCodeEval as SandboxedCodeEval
from tad_ext.evaluation.harness.code_eval import check_code_tasks as check_code_tasks
from tad_ext.evaluation.harness.code_eval import code_eval_in_sandbox as code_eval_in_sandbox
from tad_ext.evaluation.harness.model import Generation as Generation
from tad_ext.evaluation.harness.model import TadLM as TadLM
