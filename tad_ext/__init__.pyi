from .decoding import ConfidenceThreshold as ConfidenceThreshold
from .decoding import DecodeConfig as DecodeConfig
from .decoding import DecodeResult as DecodeResult
from .decoding import EntropyThreshold as EntropyThreshold
from .decoding import TopK as TopK
from .decoding import decode as decode
from .decoding import parse_policy as parse_policy
from .evaluation import accuracy_under_parallelism as accuracy_under_parallelism
from .models import load_adapter as load_adapter
from .models import load_model as load_model
from .models import load_tokenizer as load_tokenizer
from .models import merge_adapter as merge_adapter
from .ops import DecodeState as DecodeState
from .ops import TADLoss as TADLoss
from .ops import TokenStatistics as TokenStatistics
from .ops import backend_info as backend_info
from .ops import commit_reveal as commit_reveal
from .ops import fused_linear_tad_loss as fused_linear_tad_loss
from .ops import fused_tad_loss as fused_tad_loss
from .ops import masked_log_softmax as masked_log_softmax
from .ops import pack_offsets as pack_offsets
from .ops import reference as reference
from .ops import token_statistics as token_statistics
from .ops import unmask_step as unmask_step

__version__: str
